"""`checksums.json` of a checkpoint: the SHA-256 of each of its files, written last."""

import json
from pathlib import Path

from vla.base.errors import CheckpointError
from vla.base.files import sha256_of, write_json

CHECKSUMS_FILE = "checksums.json"


def write_checksums(checkpoint: Path) -> None:
    """Note what every file of a checkpoint is."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    write_json(
        checkpoint / CHECKSUMS_FILE, {p.relative_to(checkpoint).as_posix(): sha256_of(p) for p in files}
    )


def read_checksums(checkpoint: Path) -> dict[str, str]:
    """Return the checksums by relative name; none if the checkpoint has no such file.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = checkpoint / CHECKSUMS_FILE
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({str(error)[:200]})") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CheckpointError(f"{path} is no table of checksums")
    return found


def checksum_problem(checkpoint: Path) -> str | None:
    """Name the first file that is missing or has other bytes than were written; None if all is well."""
    try:
        promised = read_checksums(checkpoint)
    except CheckpointError as error:
        return str(error)
    root = checkpoint.resolve()
    for name, checksum in promised.items():
        path = checkpoint / name
        if not path.resolve().is_relative_to(root):
            return f"{checkpoint / CHECKSUMS_FILE} names {name!r}, which leads out of the checkpoint"
        if not path.is_file():
            return f"{path} is missing"
        if sha256_of(path) != checksum:
            return f"{path} has other bytes than were written (sha256 differs)"
    return None
