"""Files that appear complete or not at all."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vla.base.errors import WriteError

READ_BYTES = 1 << 20
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, sync it to disk, then rename it to `path` and sync the folder.

    A reader, or a process started after a crash, sees the old file or the whole new one.

    Raises:
        WriteError: the disk is full, or may not be written; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the place that is written to, and what to do; a library's own errors do not.

    Raises:
        WriteError: the disk is full, or may not be written.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(cannot_write(path, error)) from error


def cannot_write(path: Path, error: OSError) -> str:
    """Say why a file cannot be written, what is kept, and what to do."""
    # Not `strerror`: pyarrow's tells its own story around the system's words.
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = "make room or change --out" if error.errno in NO_ROOM else "choose another --out"
    return f"{path} cannot be written ({reason}); finished work is kept: {advice}, then run the same command"


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; the same value gives the same bytes."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that killed processes left in a folder.

    Only the holder of the folder's lock may call this: another writer's file would be lost.
    """
    for path in folder.glob(".*.tmp"):
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames and new entries of a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
