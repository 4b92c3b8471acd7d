"""`share`: a policy for others."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla.base.progress import say
from vla.saved import saved_tables


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
    from vla.policy.training.run import find_policy, find_run

    folder = find_policy(policy, checkpoint)
    alone = find_run(folder) is None and not (folder / "pipeline.toml").is_file()
    name = (push or out.resolve().name).rpartition("/")[2]
    results = run(folder, out, {} if alone else saved_tables(folder), name=name, evaluations=evaluations)
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
