"""Progress of long work: a bar on a terminal, plain lines otherwise; always rate and time left."""

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


def format_seconds(seconds: float) -> str:
    """Format a duration for people.

    >>> format_seconds(75)
    '1m15s'
    """
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02d}s"
    return f"{total // 3600}h{total % 3600 // 60:02d}m"


def say(line: str) -> None:
    """Write a line to standard error; a progress bar stays whole."""
    with tqdm.external_write_mode(sys.stderr):
        print(line, file=sys.stderr, flush=True)


class Progress:
    """Count units of work and show how far it is; a context manager.

    Args:
        label: what is being done, one word.
        total: number of units of the whole work.
        done: units that were already there when this process started (resumed work).
        unit: name of a unit, plural.
        quiet: count, but show nothing; for all but one of several processes.
        stream: where to write; standard error by default, so that `--json` output stays clean.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "it",
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._quiet = quiet
        self._start_units = self._done = done
        self._stream = stream or sys.stderr
        self._started = self._last_line = time.monotonic()
        self._bar = (
            tqdm(total=total, initial=done, desc=label, unit=f" {unit}", file=self._stream)
            if self._stream.isatty() and not quiet
            else None
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._write_line()

    def update(self, units: int = 1, **figures: float) -> None:
        """Add finished units; `figures` are shown beside the count (a loss, say)."""
        self._done += units
        if self._bar is not None:
            if figures:
                self._bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items()}, refresh=False)
            self._bar.update(units)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._write_line(**figures)

    @property
    def rate(self) -> float:
        """Units a second of this process, resumed units not counted."""
        return (self._done - self._start_units) / max(time.monotonic() - self._started, 1e-9)

    def _write_line(self, **figures: float) -> None:
        self._last_line = time.monotonic()
        if self._quiet:
            return
        rate = self.rate
        left = format_seconds((self._total - self._done) / rate) if rate > 0 else "?"
        share = 100 * self._done / self._total if self._total else 100.0
        extra = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
        print(
            f"{self._label}: {self._done}/{self._total} {self._unit} ({share:.0f}%)  "
            f"{rate:.1f} {self._unit}/s  {left} left{extra}",
            file=self._stream,
            flush=True,
        )
