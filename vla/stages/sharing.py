"""`share` and `export --lerobot`: a policy for others."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla.base.progress import say
from vla.config import PipelineConfig
from vla.saved import saved_tables
from vla.stages.live import require_plain_chunks


def share(
    policy: Path,
    out: Path,
    *,
    evaluations: Sequence[Path] = (),
    push: str | None = None,
    private: bool = False,
    checkpoint: str | None = None,
) -> dict[str, Any]:
    """Write a policy folder with a model card, and publish it if asked; see `vla.policy.sharing`.

    Args:
        policy: a run, a checkpoint or a policy folder.
        out: the folder to make.
        evaluations: folders of evaluations of this policy that lie elsewhere than below its run.
        push: `owner/name` on the Hub.
        private: whether only its owner sees it there.
        checkpoint: of a run: best, last or a step; None takes best if there is one, else last.
    """
    from vla.policy.sharing.hub import push as publish
    from vla.policy.sharing.share import share as run
    from vla.policy.training.run import find_policy

    folder = find_policy(policy, checkpoint)
    name = (push or out.resolve().name).rpartition("/")[2]
    results = run(folder, out, _tables_to_share(folder), name=name, evaluations=evaluations)
    if not results:
        say(f"no evaluation of these weights was found; measure them: vla rollout {shlex.quote(str(policy))}")
    url = publish(out, push, private=private) if push else None
    return {
        "out": str(out),
        "policy": str(folder),
        "evaluations": len(results),
        **({"url": url} if url else {}),
        "next": f"vla rollout {shlex.quote(str(out))}",
    }


def export_lerobot(
    settings: PipelineConfig, policy: Path, out: Path, *, checkpoint: str | None = None
) -> dict[str, Any]:
    """Write a policy for LeRobot's own commands; see `vla.rollout.export.lerobot_folder`.

    Args:
        settings: `rollout.num_steps` and `rollout.task` are used.
        policy: a run, a checkpoint or a policy folder.
        out: the folder to make.
        checkpoint: of a run: best, last or a step; None takes best if there is one, else last.
    """
    from vla.policy.saved_policy import read_config
    from vla.policy.training.run import find_policy
    from vla.rollout.export.lerobot_folder import write_lerobot_folder

    require_plain_chunks(settings, "lerobot")
    folder = find_policy(policy, checkpoint)
    name = out.resolve().name
    observes = write_lerobot_folder(folder, out, _tables_to_share(folder), settings.rollout, name=name)
    fps = read_config(folder).fps
    return {
        "out": str(out),
        "policy": str(folder),
        "observes": list(observes.values()),
        "next": f"lerobot-rollout --policy.path={shlex.quote(str(out))} --fps={fps:g} …",
    }


def _tables_to_share(policy: Path) -> dict[str, Any]:
    """Return the settings of a policy's run; none if nobody has saved them."""
    from vla.policy.training.run import find_run

    alone = find_run(policy) is None and not (policy / "pipeline.toml").is_file()
    return {} if alone else saved_tables(policy)
