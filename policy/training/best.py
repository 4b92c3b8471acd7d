"""Which checkpoint is the best, by what a run has measured; and whether it has stopped getting better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vla.base.errors import ConfigError
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a checkpoint is judged by."""

    name: str
    """As `train.best` spells it."""
    kind: str
    """Of the lines of `metrics.jsonl` that hold it: rollout or val."""
    figure: str
    sign: int
    """1 where more is better, -1 where less is."""

    def best_of(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """Return the best of some lines, the first of equals; None of none."""
        return max(rows, key=lambda row: self.sign * row[self.figure], default=None)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(name="reward", kind="rollout", figure="avg_reward", sign=1),
        Measure(name="val_loss", kind="val", figure="loss", sign=-1),
        Measure(name="action_error", kind="val", figure="action_rmse", sign=-1),
    )
}


def choose_measure(config: TrainConfig, measured: Mapping[str, bool]) -> Measure | None:
    """Return what a run's checkpoints are judged by; None where nothing is measured.

    Args:
        config: names one, or leaves it open.
        measured: whether there are validation rollouts ("rollout") and held-out episodes ("val").

    Raises:
        ConfigError: one is named that is not measured, or training shall end by none.
    """
    if config.best == "auto":
        found = next((m for m in (MEASURES["reward"], MEASURES["val_loss"]) if measured[m.kind]), None)
        if found is None and config.patience:
            raise ConfigError(
                f"train.patience = {config.patience} needs something that is measured; hold episodes out: "
                "--set train.val_episodes=2"
            )
        return found
    measure = MEASURES[config.best]
    if not measured[measure.kind]:
        needs = {
            "rollout": "validation rollouts, and there are none (train.rollout_every, env.id)",
            "val": "held-out episodes, and there are none (train.val_episodes)",
        }
        raise ConfigError(
            f"train.best = {config.best} needs {needs[measure.kind]}; or leave it open: --set train.best=auto"
        )
    return measure


class Judge:
    """Keeps the link `best` of a run, and its checkpoint.

    Args:
        run: whose checkpoints they are.
        config: when it saves, and how long it waits for a better one.
        measure: what they are judged by; None is nothing.
    """

    def __init__(self, run: RunDirectory, config: TrainConfig, measure: Measure | None) -> None:
        self._run, self._config, self._measure = run, config, measure

    def is_best(self, kind: str, step: int, figures: Mapping[str, float]) -> bool:
        """Tell whether a step is the best so far.

        Args:
            kind: of what was measured, rollout or val.
            step: where the run stands.
            figures: what was measured there, not logged yet.
        """
        measure = self._measure
        if measure is None or measure.kind != kind:
            return False
        rows = [*self._kept(measure), {"step": step, **figures}]
        return measure.best_of(rows) is rows[-1]

    def keep(self, step: int) -> None:
        """Let `best` lead to a step's checkpoint; the former one goes, if it was there for nothing else."""
        former = self._run.best_step()
        self._run.link("best", step)
        if former is not None and former < step and not self._is_due(former):
            self._run.remove(former)

    def restore_links(self) -> None:
        """Let `last` and `best` lead where they should: a kill came first, or a checkpoint was removed."""
        if (last := self._run.last_step()) is not None:
            self._run.link("last", last)
        best = self._measure.best_of(self._kept(self._measure)) if self._measure else None
        if best is not None:
            self._run.link("best", best["step"])

    def may_stop(self, step: int) -> bool:
        """Tell whether something was measured at a step after which training may end."""
        if self._measure is None or not self._config.patience or step == 0:
            return False
        every = self._config.val_every if self._measure.kind == "val" else self._config.rollout_every
        return step % every == 0

    def reason_to_stop(self) -> str:
        """Say why training ends, by what is logged; empty where it goes on."""
        assert self._measure is not None
        rows, patience = self._rows(self._measure), self._config.patience
        best = self._measure.best_of(rows)
        if best is None or sum(row["step"] > best["step"] for row in rows) < patience:
            return ""
        value = (
            f"{self._measure.name} has been best at step {best['step']} ({best[self._measure.figure]:.4g})"
        )
        return f"{value}, {patience} measurements ago; go on: --resume --set train.patience=0"

    def _rows(self, measure: Measure) -> list[dict[str, Any]]:
        return read_metrics(self._run, measure.kind)

    def _kept(self, measure: Measure) -> list[dict[str, Any]]:
        """Return the lines of steps whose checkpoint is there: one may have been removed as damaged."""
        return [row for row in self._rows(measure) if self._run.checkpoint(row["step"]).exists()]

    def _is_due(self, step: int) -> bool:
        """Tell whether a step's checkpoint is kept whatever is measured."""
        config = self._config
        intervals = [every for every in (config.save_every, config.rollout_every) if every]
        return step in config.extended or any(step % every == 0 for every in intervals)
