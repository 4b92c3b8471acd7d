"""`checkpoints/last` and `checkpoints/best`: where they lead."""

from collections.abc import Mapping, Sequence
from typing import Any

from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics


def restore_links(run: RunDirectory) -> None:
    """Let both lead where they should: a kill came before they were set, or a checkpoint was removed."""
    if (last := run.last_step()) is not None:
        run.link("last", last)
    link_best(run, read_metrics(run, "rollout"))


def link_best(run: RunDirectory, rollouts: Sequence[Mapping[str, Any]]) -> None:
    """Let `best` lead to the best checkpoint that is there, by lines of validation rollouts in order."""
    there = [row for row in rollouts if run.checkpoint(row["step"]).exists()]
    if there:
        run.link("best", max(there, key=lambda row: row["avg_reward"])["step"])
