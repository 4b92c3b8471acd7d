"""One writer at a time: a lock file that the kernel releases when its holder dies."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vla.base.errors import VlaError, WriteError
from vla.base.files import cannot_write


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
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise WriteError(cannot_write(target, error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 300, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise VlaError(
                f"{target} is being written by process {holder}; wait for it or choose another --out"
            ) from None
        if _is_still(path, descriptor):
            break
        os.close(descriptor)  # the previous holder removed the file between our open and our lock
    try:
        _write_holder(target, descriptor)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _write_holder(target: Path, descriptor: int) -> None:
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError as error:  # a full disk still takes an empty file
        raise WriteError(cannot_write(target, error)) from error


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
