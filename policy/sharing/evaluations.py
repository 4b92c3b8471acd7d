"""The evaluations that are results of a policy: of its very weights, on seeds that chose nothing.

An evaluation says whose it is: `weights_sha256` in its `eval_info.json`, the checksum of the file of weights.
Older ones do not; where `vla rollout` named their folder, its name tells the checkpoint. Validation rollouts,
`<run>/eval/step_*`, choose the best checkpoint: they are no results, and neither is any other evaluation on
one of their seeds.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla.base.errors import CheckpointError
from vla.base.files import sha256_of
from vla.base.progress import say
from vla.policy.saved_policy import WEIGHTS_FILE
from vla.policy.sharing.card import Evaluation
from vla.policy.training.run import CONFIG_FILE, find_run

INFO_FILE, WHOSE = "eval_info.json", "weights_sha256"


def evaluations_of(
    policy: Path, tables: Mapping[str, Any], head_steps: int, named: Sequence[Path] = ()
) -> list[Evaluation]:
    """Collect the evaluations of a policy: wherever they lie below its run, or below itself, and named ones.

    Args:
        policy: the folder of `config.json` and weights.
        tables: the settings of its run.
        head_steps: sampling steps that the action head takes where nothing else is asked.
        named: folders of further evaluations.

    Raises:
        CheckpointError: a named one is none, is another policy's, or is on seeds that chose the checkpoint.
    """
    run, weights = find_run(policy), sha256_of(policy / WEIGHTS_FILE)
    chosen_on = _seeds_of_validation(run) if run else set()
    places = {path.parent.resolve(): path.parent for path in (run or policy).rglob(INFO_FILE)}
    places |= {folder.resolve(): folder for folder in named}
    asked = {folder.resolve() for folder in named}
    found = []
    for place, folder in sorted(places.items()):
        info = _read(folder)
        reason = _not_a_result(folder, info, weights, policy, chosen_on)
        if not reason:
            assert info is not None
            found.append(_evaluation(folder, info, tables, head_steps))
        elif place in asked:
            raise CheckpointError(
                f"{folder} {reason}; leave it out, or evaluate this policy: vla rollout {policy}"
            )
        elif "seeds" in reason:
            say(f"{folder} {reason}; it is left out")
    return found


def _not_a_result(
    folder: Path, info: Mapping[str, Any] | None, weights: str, policy: Path, chosen_on: set[int]
) -> str:
    """Say why an evaluation is no result of a policy; empty if it is one."""
    if info is None:
        return f"holds no {INFO_FILE} that can be read"
    if folder.name.startswith("step_") and WHOSE not in info:
        return "is a validation rollout, which chose the checkpoint"
    if WHOSE not in info and not _is_named_after(folder, policy):
        return f"does not say whose evaluation it is ({WHOSE})"
    if info.get(WHOSE, weights) != weights:
        return f"is an evaluation of other weights (SHA-256 {str(info[WHOSE])[:12]}, not {weights[:12]})"
    if seeds := chosen_on & {row["seed"] for row in info["per_episode"]}:
        return f"has seeds that chose the checkpoint, such as {min(seeds)}"
    return ""


def _is_named_after(folder: Path, policy: Path) -> bool:
    """Tell whether an evaluation that does not say whose it is lies where that of a checkpoint was put."""
    run, step = find_run(policy), policy.resolve().parent.name
    if run is None or folder.resolve().parent != run / "eval":
        return False
    weights = _settings(folder).get("rollout", {}).get("weights")
    return folder.name.startswith(f"rollout_{step}_") and weights != "raw"


def _seeds_of_validation(run: Path) -> set[int]:
    infos = [_read(folder) for folder in run.glob("eval/step_*")]
    return {row["seed"] for info in infos if info is not None for row in info["per_episode"]}


def _read(folder: Path) -> dict[str, Any] | None:
    """Read what an evaluation says; None if it is none, or not whole."""
    try:
        info = json.loads((folder / INFO_FILE).read_bytes())
        for key in ("pc_success", "pc_success_ci95", "n_episodes"):
            info["aggregated"][key]
        whole = [row["seed"] for row in info["per_episode"]] and isinstance(info["avg_reward"], int | float)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return info if whole else None


def _settings(folder: Path) -> dict[str, Any]:
    """Read the settings that `vla rollout` leaves; none of a validation rollout."""
    try:
        return tomllib.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return {}


def _evaluation(
    folder: Path, info: Mapping[str, Any], tables: Mapping[str, Any], head_steps: int
) -> Evaluation:
    saved = _settings(folder)
    steps, own_steps = (
        source.get("rollout", {}).get("num_steps") or head_steps for source in (saved or tables, tables)
    )
    own_env = tables.get("env", {})
    env = {**own_env, **saved.get("env", {})}
    kwargs, own_kwargs = env.get("kwargs", {}), own_env.get("kwargs", {})
    return Evaluation(
        env=env.get("id", "unknown"),
        kwargs={key: value for key, value in kwargs.items() if own_kwargs.get(key) != value},
        info=info,
        num_steps=None if steps == own_steps == head_steps else steps,
    )
