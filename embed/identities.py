"""Identify the episodes of a dataset, and remember them: a second look at unchanged files reads none of them.

What is remembered lies beside the caches, in `.identities/<12 digits>.parquet`: for each episode a stamp
(over the size, time of change and inode number of its files, and where in them it lies) and its content.
Like make and rsync, this takes a file whose stamp has not changed for unchanged.
"""

import hashlib
import json
from pathlib import Path

from vla.base.distributed import World
from vla.base.errors import CacheError
from vla.cache.memory import FOLDER, remember
from vla.cache.metadata import digest_of
from vla.cache.tables import digest_rows, read_table, table_bytes
from vla.embed.datasets import FrameSource
from vla.embed.datasets.content import FileWatch

VERSION = 1
"""Of how contents are computed; another one forgets what is remembered."""
KEPT = 1 << 18
"""Episodes that are remembered beside those of now: others of the dataset, and files as they were lately."""
COLUMNS = (("stamp", "digest"), ("content", "digest"))


def episode_contents(source: FrameSource, files: FileWatch, beside: Path, world: World) -> tuple[bytes, ...]:
    """Return the content of each episode; every process reads its share of what is not remembered.

    Args:
        source: the demonstrations.
        files: theirs, watched since before this call.
        beside: the folder of caches.
        world: the processes that share the work.

    Raises:
        DatasetError: a file is missing or cannot be read.
    """
    path = beside / FOLDER / f"{digest_of([VERSION, _view(source)])}.parquet"
    stamps = [_stamp(source, files, position) for position in range(len(source.episodes))]
    known = world.broadcast(_recall(path) if world.is_main else None)
    unknown = [position for position, stamp in enumerate(stamps) if stamp not in known]
    mine = world.share(unknown)
    read = zip(mine, source.contents(mine), strict=True)
    found = dict(pair for share in world.gather(list(read)) for pair in share)
    contents = [known[stamp] if stamp in known else found[k] for k, stamp in enumerate(stamps)]
    if unknown and world.is_main:
        files.require_unchanged()
        now = dict(zip(stamps, contents, strict=True))
        others = [pair for pair in known.items() if pair[0] not in now]
        rows = [*others[-KEPT:], *now.items()]
        columns = {"stamp": [stamp for stamp, _ in rows], "content": [content for _, content in rows]}
        remember(path, table_bytes({name: digest_rows(column) for name, column in columns.items()}))
    return tuple(contents)


def _view(source: FrameSource) -> list[object]:
    """Say which dataset is looked at, and what of it."""
    return [source.format, source.path, [stream.model_dump(mode="json") for stream in source.streams]]


def _stamp(source: FrameSource, files: FileWatch, position: int) -> bytes:
    names, how = source.place(position)
    said = [source.episodes[position].length, how, [[name, files.stamps.get(name)] for name in names]]
    return hashlib.sha256(json.dumps(said).encode()).digest()


def _recall(path: Path) -> dict[bytes, bytes]:
    try:
        table, _ = read_table(path, COLUMNS)
    except CacheError:  # not there yet, or damaged: read again
        return {}
    rows = zip(table["stamp"], table["content"], strict=True)
    return {stamp.tobytes(): content.tobytes() for stamp, content in rows}
