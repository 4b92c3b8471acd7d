"""The figures of a run: `metrics.jsonl` always, and a tracker."""

import json
import math
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, TextIO

from vla.base.errors import VlaError
from vla.base.files import write_atomically
from vla.policy.training.run import RunDirectory
from vla.policy.training.trackers.tracker import Tracker


class RunLog:
    """Append figures to a run; a context manager.

    Args:
        run: the run directory.
        step: the step the run stands at. Lines of later steps, left by a process that was killed after
            its last checkpoint, are dropped: they will be written again.
        tracker: gets the same figures; closed with the log. None is none.
        writes: False in all processes but the main one, whose figures are those of all.
    """

    def __init__(
        self, run: RunDirectory, step: int, tracker: Tracker | None = None, *, writes: bool = True
    ) -> None:
        self._tracker = tracker
        self._file: TextIO | None = None
        if writes:
            kept = [row for row in read_metrics(run) if row["step"] <= step]
            write_atomically(run.metrics, "".join(json.dumps(row) + "\n" for row in kept).encode())
            self._file = run.metrics.open("a")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if self._tracker is not None:
                self._tracker.close()

    def write(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        """Write one line, and one scalar a figure under `kind/` (train, val, rollout).

        Raises:
            VlaError: a figure is not finite.
        """
        for name, value in figures.items():
            if not math.isfinite(value):
                raise VlaError(f"{kind}/{name} is {value} at step {step}; the last checkpoint is kept")
        if self._file is not None:
            self._file.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
            self._file.flush()
        if self._tracker is not None:
            self._tracker.log({f"{kind}/{name}": value for name, value in figures.items()}, step)


def read_metrics(run: RunDirectory, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, or those of one kind; a torn last line is left out."""
    return [row for row in _rows(run) if kind is None or row.get("kind") == kind]


def torn_lines(run: RunDirectory) -> int:
    """Count the lines of `metrics.jsonl` that are no figures; a torn last one is what a kill leaves."""
    if not run.metrics.is_file():
        return 0
    lines = run.metrics.read_text(errors="replace").splitlines()
    good = len(list(_rows(run)))
    last_is_torn = bool(lines) and not run.metrics.read_bytes().endswith(b"\n")
    return len(lines) - good - int(last_is_torn and len(lines) > good)


def _rows(run: RunDirectory) -> Iterator[dict[str, Any]]:
    if not run.metrics.is_file():
        return
    for line in run.metrics.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row
