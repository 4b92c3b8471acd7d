"""Check a whole cache against what it promises: every byte, every value, every frame's place."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vla.base.errors import CacheError
from vla.base.progress import Progress
from vla.cache.frames import Frames
from vla.cache.metadata import CacheMetadata, Statistics
from vla.cache.part import PartHeader, PartSpec, read_header, read_plan
from vla.cache.reader import OTHER_BYTES, checksum_damage, find_cache, read_metadata
from vla.cache.shard import POSITIONS, damage, map_shard, not_finite
from vla.cache.statistics import Moments, has_moments, moments_of, vector_statistics
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
    problems = [CacheError(what, folder=folder, remedy="stray") for what in _unknown_files(folder, metadata)]
    whole = True
    total = sum(part.num_shards for part in metadata.parts)
    with Progress("verify", total, unit="shards") as progress:
        for number in range(len(metadata.parts)):
            found = list(_part_problems(folder, metadata, number, progress))
            whole = whole and not found
            problems += found
    texts = folder / FILES[metadata.format_version]
    if metadata.texts is not None and (wrong := texts_damage(texts, metadata.texts)):
        problems.append(CacheError(f"{texts} {wrong}", folder=folder, remedy="texts"))
    if whole:
        for what in _statistics_problems(folder, metadata):
            problems.append(CacheError(f"{folder / 'cache.json'} {what}", folder=folder, remedy="rewrite"))
    return problems


def _unknown_files(folder: Path, metadata: CacheMetadata) -> Iterator[str]:
    known = {part.file(number) for part in metadata.parts for number in range(part.num_shards)}
    for path in sorted([*folder.glob("shards/*"), *folder.glob("parts/*/shards/*")]):
        if path.relative_to(folder).as_posix() not in known:
            yield f"{path} is not listed in cache.json"


def _part_problems(
    folder: Path, metadata: CacheMetadata, number: int, progress: Progress
) -> Iterator[CacheError]:
    """Check a part, its own files and each shard."""
    part, spec, header = metadata.parts[number], None, None
    if metadata.format_version >= 3:
        root = folder / part.folder
        spec = read_plan(root, metadata.recipe, metadata.streams, metadata.variants)
        header = read_header(folder, spec) if spec else None
        if spec is None or header is None:
            what = "episodes.parquet" if spec is None else "part.json"
            said = f"{root / what} is damaged, or another part's"
            yield CacheError(said, folder=folder, remedy="rewrite")
            progress.update(part.num_shards)
            return
    whole = True
    for shard in range(part.num_shards):
        for what in _shard_problems(folder, metadata, number, shard, spec):
            whole = False
            yield CacheError(f"shard {folder / part.file(shard)} {what}", folder=folder, remedy="mend")
        progress.update()
    if whole and spec is not None and header is not None:
        for what in _moments_problems(folder, spec, header):
            yield CacheError(f"{folder / part.folder / 'part.json'} {what}", folder=folder, remedy="rewrite")


def _shard_problems(
    folder: Path, metadata: CacheMetadata, number: int, shard: int, spec: PartSpec | None
) -> Iterator[str]:
    path, planned = folder / metadata.parts[number].file(shard), metadata.layout(number, shard)
    wrong = damage(path, planned)
    if wrong is not None:
        yield wrong
        return
    if checksum_damage(folder, metadata, [(number, shard)]):
        yield OTHER_BYTES
        return
    tensors = map_shard(path, planned)
    due = spec.positions(shard) if spec else _old_positions(metadata, shard)
    for name, row in not_finite(tensors):
        yield f"has '{name}' not finite at {_called(metadata, number, spec, due, row)}"
    for name, expected in zip(POSITIONS, due, strict=True):
        if not np.array_equal(tensors[name].numpy(), expected):
            row = int(np.argmax(tensors[name].numpy() != expected))
            there = f"episode {due[0][row]}, frame {due[1][row]}"
            yield f"has {name} {int(tensors[name][row])} where {there} is due"


def _old_positions(metadata: CacheMetadata, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """In formats 1 and 2 shards had the dataset's numbers of episodes."""
    frames, table = metadata.parts[0].frame_range(shard), metadata.episodes
    numbers = np.arange(frames.start, frames.stop)
    episode = table.find(numbers)
    return table.number[episode], (numbers - table.first_frame[episode]).astype(np.int32)


def _called(
    metadata: CacheMetadata, number: int, spec: PartSpec | None, due: tuple[np.ndarray, np.ndarray], row: int
) -> str:
    """Name a row of a shard by the dataset's number of its episode, if the episode is listed."""
    episode, frame = int(due[0][row]), int(due[1][row])
    if spec is None:
        return f"episode {episode}, frame {frame}"
    table = metadata.episodes
    listed = np.flatnonzero((table.part == number) & (table.first_row == spec.firsts[episode]))
    name = (
        f"episode {table.number[listed[0]]}" if len(listed) else f"episode {episode} of the part, not listed"
    )
    return f"{name}, frame {frame}"


def _moments_problems(folder: Path, spec: PartSpec, header: PartHeader) -> Iterator[str]:
    """Compute the moments again; asks for whole shards."""
    shards = [map_shard(folder / spec.part.file(k), spec.layout(k)) for k in range(spec.num_shards)]
    for stream in filter(has_moments, spec.streams):
        found = moments_of(stream, (shard[stream.name].numpy() for shard in shards))
        if stream.name not in header.moments or not _same(found, header.moments[stream.name]):
            yield f"has moments of '{stream.name}' that are not those of its shards"


def _statistics_problems(folder: Path, metadata: CacheMetadata) -> Iterator[str]:
    """Compute the statistics again; asks for whole shards."""
    frames = Frames(folder, metadata)
    for stream in metadata.streams:
        pieces = (piece.numpy() for piece in frames.pieces(stream.name, frames.runs))
        found = (
            moments_of(stream, pieces).statistics()
            if has_moments(stream)
            else vector_statistics(list(pieces))
        )
        if not _same(found, metadata.statistics[stream.name]):
            yield f"has statistics of '{stream.name}' that are not those of its shards"


def _same(found: Statistics | Moments, stored: Statistics | Moments) -> bool:
    """Compare what is stored; format 1 stored less of features."""
    computed = found.model_dump()
    promised = {name: values for name, values in stored.model_dump().items() if values is not None}
    return all(np.allclose(computed[name], values, rtol=SAME, atol=SAME) for name, values in promised.items())
