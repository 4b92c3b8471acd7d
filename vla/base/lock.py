"""One writer at a time: a lock file that the kernel releases when its holder dies."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vla.base.errors import VlaError, WriteError
from vla.base.files import cannot_write

# The holder removes its file as it goes, and who has opened that file has to look again.
PATIENCE_S, BETWEEN_TRIES_S = 0.2, 0.02


@contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Hold `<target>.lock` while writing `target`.

    The lock is the kernel's, not the file's presence: a file left behind by a killed process is
    no obstacle, and is taken over, even where another process has its number by now.

    Raises:
        VlaError: another process holds it, the message names its process id and machine.
        WriteError: the place cannot be written.
    """
    path = target.resolve()  # "." has no name
    path = path.with_name(path.name + ".lock")
    # A file whose presence is the lock would be an obstacle after a kill: rather none than that one.
    lock = FileLock(path, PATIENCE_S, poll_interval=BETWEEN_TRIES_S, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise VlaError(
            f"{target} is being written by process {_holder(path)}; wait for it or choose another --out"
        ) from None
    except OSError as error:
        raise WriteError(cannot_write(target, error)) from error
    try:
        _write_holder(target, path)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_bytes()[:300].decode(errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"


def _write_holder(target: Path, path: Path) -> None:
    try:
        path.write_text(f"{os.getpid()} on {socket.gethostname()}\n")
    except OSError as error:  # a full disk still takes an empty file
        raise WriteError(cannot_write(target, error)) from error
