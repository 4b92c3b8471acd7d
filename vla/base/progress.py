"""Progress of long work: a bar on a terminal, plain lines otherwise; always rate and time left."""

import sys
from types import TracebackType

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
LINE = "{desc}: {n_fmt}/{total_fmt}{unit} ({percentage:.0f}%)  {rate_noinv_fmt}  {remaining} left{postfix}"


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
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "it",
        quiet: bool = False,
    ) -> None:
        stream = sys.stderr  # `--json` output stays clean
        bar = tqdm if stream.isatty() else _Lines
        self._bar = bar(total=total, initial=done, desc=label, unit=f" {unit}", file=stream, disable=quiet)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and isinstance(self._bar, _Lines):
            self._bar.refresh()  # the last line: all there is of short work
        self._bar.close()

    def update(self, units: int = 1, **figures: float) -> None:
        """Add finished units; `figures` are shown beside the count (a loss, say)."""
        if figures:
            self._bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items()}, refresh=False)
        self._bar.update(units)


class _Lines(tqdm):  # type: ignore[misc]  # tqdm has no annotations
    """A bar for log files: a line now and then, without the bar."""

    monitor_interval = 0  # no thread: every update looks at the clock, because `miniters` is fixed

    def __init__(self, **options: object) -> None:
        super().__init__(
            **options,
            bar_format=LINE,
            mininterval=SECONDS_BETWEEN_LINES,
            miniters=1,
            smoothing=0,  # the rate of the whole work, not of its last seconds
            delay=1e-9,  # nothing to say yet
            leave=False,
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None and not self.disable:
            print(self, file=self.fp, flush=True)
