"""What a run of a suite has come to, from the files that it wrote."""

import json
from dataclasses import dataclass

from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.suite.folder import SuiteFolder


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Figures of one run; None where it was not measured (yet)."""

    val_loss: float | None
    """Of the last validation."""
    best_avg_reward: float | None
    """Of the validation rollouts."""
    avg_reward: float | None
    """Of the final rollout; likewise what follows."""
    pc_success: float | None
    interval: tuple[float, float] | None
    """95 % interval of the success rate [%]."""
    episodes: int


def read_result(folder: SuiteFolder, name: str) -> RunResult:
    """Gather the figures of a run."""
    run = RunDirectory(folder.run(name))
    validations = read_metrics(run, "val")
    rewards = [row["avg_reward"] for row in read_metrics(run, "rollout")]
    try:
        info = json.loads((folder.final_rollout(name) / "eval_info.json").read_bytes())
    except (OSError, ValueError):
        info = {}
    aggregated = info.get("aggregated", {})
    interval = aggregated.get("pc_success_ci95")
    return RunResult(
        val_loss=validations[-1]["loss"] if validations else None,
        best_avg_reward=max(rewards, default=None),
        avg_reward=info.get("avg_reward"),
        pc_success=aggregated.get("pc_success"),
        interval=(interval[0], interval[1]) if interval else None,
        episodes=aggregated.get("n_episodes", 0),
    )
