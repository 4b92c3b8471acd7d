"""Files that appear complete or not at all."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

READ_BYTES = 1 << 20


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, sync it to disk, then rename it to `path` and sync the folder.

    A reader, or a process started after a crash, sees the old file or the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


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
