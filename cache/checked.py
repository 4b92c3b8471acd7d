"""Remember which shards were read and found right: a second look at unchanged files reads none of them.

What is remembered lies beside the caches, in `.identities/shards.parquet`: marks, each a digest over a
shard's checksum and the size, time of change and inode number that its file had. Like make and rsync, this
takes a file whose stamp has not changed for unchanged. A bit that flips on the disk changes no stamp: whoever
reads all bytes, as `vla verify` and `vla train` do, and finds one makes this forget everything.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from vla.base.errors import CacheError
from vla.cache.memory import FOLDER, remember
from vla.cache.shard import wrong_checksums
from vla.cache.tables import digest_rows, read_table, table_bytes

FILE = f"{FOLDER}/shards.parquet"
YOUNG_NS = 2_000_000_000
"""A file that changed so lately is not remembered: file systems tell times apart by up to two seconds."""
KEPT = 1 << 20
"""Marks that are remembered; those of a billion frames are a quarter of it."""


class CheckedShards:
    """The marks of shards that were right when they were looked at.

    Args:
        caches: the folder of caches.
    """

    def __init__(self, caches: Path) -> None:
        self._path = caches / FILE
        try:
            table, _ = read_table(self._path, [("mark", "digest")])
        except CacheError:  # not there yet, or damaged: looked at again
            table = {"mark": digest_rows([])}
        self._marks = dict.fromkeys(row.tobytes() for row in table["mark"])
        self._found = len(self._marks)

    def wrong(self, shards: Sequence[tuple[Path, str]]) -> list[int]:
        """Return which of some shards, given with their SHA-256, are missing or have other bytes."""
        marks = [_mark(path, sha256) for path, sha256 in shards]
        unknown = [k for k, mark in enumerate(marks) if mark is None or mark not in self._marks]
        wrong = {unknown[k] for k in wrong_checksums([shards[k] for k in unknown])}
        self._marks |= {mark: None for k in unknown if k not in wrong and (mark := marks[k]) is not None}
        return sorted(wrong)

    def note(self, shards: Sequence[tuple[Path, str]]) -> None:
        """Remember shards whose checksums have just been computed from their bytes."""
        marks = (_mark(path, sha256) for path, sha256 in shards)
        self._marks |= {mark: None for mark in marks if mark is not None}

    def save(self) -> None:
        """Write down what is new."""
        if len(self._marks) != self._found:
            remember(self._path, table_bytes({"mark": digest_rows(list(self._marks)[-KEPT:])}))


def forget_checks(cache: Path) -> None:
    """Have every shard beside and in a cache read again by the next `vla embed`."""
    with contextlib.suppress(OSError):
        (cache.parent / FILE).unlink()


def _mark(path: Path, sha256: str) -> bytes | None:
    """Return what stands for these bytes in this file; None if there is none, or one that is young."""
    try:
        found = os.stat(path)  # noqa: PTH116 follows links, as reading does
    except OSError:
        return None
    if time.time_ns() - found.st_mtime_ns < YOUNG_NS:
        return None
    said = f"{sha256} {found.st_size} {found.st_mtime_ns} {found.st_ino}"
    return hashlib.sha256(said.encode()).digest()
