"""Stop when asked to, at a moment that loses nothing: SIGINT (Ctrl-C) and SIGTERM.

    with interruptible():              the command line: from here on the two signals raise `Interrupted`
        with deferred() as signals:    a stage: from here on the first signal waits
            while work:
                ...                    write a shard, a checkpoint, an attempt
                signals.stop_if_asked("3 of 9 shards are kept")

A second signal does not wait. Outside of `interruptible`, in a notebook say, nothing is changed.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The user, or a scheduler, asked for an end. No error: `except Exception` does not catch it.

    Attributes:
        signal: which signal it was.
        kept: what is on disk, in words.
        options: what the same command needs besides, to go on.
    """

    options: tuple[str, ...] = ()

    def __init__(self, number: int, kept: str = "finished work is kept") -> None:
        super().__init__(kept)
        self.signal, self.kept = signal.Signals(number), kept

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended: 130 or 143."""
        return 128 + self.signal


class Signals:
    """What came while a stage was at work."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._patient = True

    def stop_if_asked(self, kept: str) -> None:
        """End here if a signal has come; call it where everything is on disk.

        Raises:
            Interrupted: one has come.
        """
        if self.received is not None:
            raise Interrupted(self.received, kept)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Do not wait inside of this: what is done here can be done again."""
        self.stop_if_asked("finished work is kept")
        self._patient = False
        try:
            yield
        finally:
            self._patient = True

    def arrive(self, number: int) -> None:
        """Note a signal, or end at once where it is the second, or nobody waits."""
        if self.received is not None or not self._patient:
            raise Interrupted(number)
        self.received = number
        name = signal.Signals(number).name
        # No tqdm here: a handler may come while tqdm holds its lock.
        print(f"\n{name}: stopping when nothing is lost; once more to stop now", file=sys.stderr, flush=True)


_listening: list[Signals] = []
_installed = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise `Interrupted`; the former handlers come back afterwards.

    Only the main thread may, and only there it is needed.
    """
    global _installed
    former = {number: signal.signal(number, _handle) for number in SIGNALS}
    _installed = True
    try:
        yield
    finally:
        _installed = False
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Signals]:
    """Let the first signal wait until the stage looks for it."""
    signals = Signals()
    if not _installed:
        yield signals
        return
    _listening.append(signals)
    try:
        yield signals
    finally:
        _listening.remove(signals)


def _handle(number: int, frame: FrameType | None) -> None:
    if not _listening:
        raise Interrupted(number)
    _listening[-1].arrive(number)
