"""Check a whole cache against what `cache.json` promises: every byte, every value, every frame's place."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vla.base.errors import CacheError
from vla.base.progress import Progress
from vla.cache.episodes import positions
from vla.cache.metadata import CacheMetadata, Statistics
from vla.cache.reader import OTHER_BYTES, checksum_damage, find_cache, read_metadata
from vla.cache.shard import POSITIONS, damage, map_shard, not_finite
from vla.cache.statistics import stream_statistics
from vla.cache.texts import FILES, texts_damage

SAME = 1e-6
"""Statistics may differ by so much, relatively: numpy's order of sums may change."""


def cache_problems(path: Path) -> list[CacheError]:
    """List what is wrong with a cache, each with the remedy.

    Args:
        path: a cache, or a folder that holds one.

    Raises:
        CacheError: there is no finished cache.
    """
    folder = find_cache(path)
    try:
        metadata = read_metadata(folder)
    except CacheError as error:
        return [error]
    problems = list(_unknown_files(folder, metadata))
    damaged = False
    with Progress("verify", len(metadata.shards), unit="shards") as progress:
        for number, shard in enumerate(metadata.shards):
            for what in _shard_problems(folder, metadata, number):
                damaged = True
                problems.append(
                    CacheError(f"shard {folder / shard.file} {what}", folder=folder, remedy="mend")
                )
            progress.update()
    texts = folder / FILES[metadata.format_version]
    if metadata.texts is not None and (wrong := texts_damage(texts, metadata.texts)):
        problems.append(CacheError(f"{texts} {wrong}", folder=folder, remedy="texts"))
    if not damaged:
        for what in _statistics_problems(folder, metadata):
            problems.append(CacheError(f"{folder / 'cache.json'} {what}", folder=folder, remedy="rewrite"))
    return problems


def _unknown_files(folder: Path, metadata: CacheMetadata) -> Iterator[CacheError]:
    known = {shard.file for shard in metadata.shards}
    for path in sorted((folder / "shards").iterdir() if (folder / "shards").is_dir() else ()):
        if f"shards/{path.name}" not in known:
            yield CacheError(f"{path} is not listed in cache.json", folder=folder, remedy="stray")


def _shard_problems(folder: Path, metadata: CacheMetadata, number: int) -> Iterator[str]:
    path, planned = folder / metadata.shards[number].file, metadata.layout(number)
    wrong = damage(path, planned)
    if wrong is not None:
        yield wrong
        return
    if checksum_damage(folder, metadata, [number]):
        yield OTHER_BYTES
        return
    shard = map_shard(path, planned)
    for name, episode, frame in not_finite(shard):
        yield f"has '{name}' not finite at episode {episode}, frame {frame}"
    first = planned.header.first_frame
    due = positions(metadata.episodes, range(first, first + planned.header.frames))
    for name, expected in zip(POSITIONS, due, strict=True):
        if not np.array_equal(shard[name].numpy(), expected):
            row = int(np.argmax(shard[name].numpy() != expected))
            yield (
                f"has {name} {int(shard[name][row])} where cache.json has episode {due[0][row]}, "
                f"frame {due[1][row]}"
            )


def _statistics_problems(folder: Path, metadata: CacheMetadata) -> Iterator[str]:
    """Compute the statistics again; asks for whole shards."""
    shards = [map_shard(folder / s.file, metadata.layout(k)) for k, s in enumerate(metadata.shards)]
    for stream in metadata.streams:
        arrays = [shard[metadata.tensor_names[stream.name]].numpy() for shard in shards]
        if not _same(stream_statistics(stream, arrays), metadata.statistics[stream.name]):
            yield f"has statistics of '{stream.name}' that are not those of its shards"


def _same(found: Statistics, stored: Statistics) -> bool:
    """Compare what is stored; format 1 stored less of features."""
    computed = found.model_dump()
    promised = {name: values for name, values in stored.model_dump().items() if values is not None}
    return all(np.allclose(computed[name], values, rtol=SAME, atol=SAME) for name, values in promised.items())
