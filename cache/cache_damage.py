"""Check a whole cache against what `cache.json` promises: every byte, every value, every frame's place."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vla.base.errors import CacheError
from vla.base.progress import Progress
from vla.cache.finite import values_not_finite
from vla.cache.metadata import CacheMetadata, FeatureStatistics, VectorStatistics
from vla.cache.reader import OTHER_BYTES, checksum_damage, find_cache, read_metadata
from vla.cache.shard import damage, map_shard, repair_command, repair_hint
from vla.cache.statistics import feature_statistics, vector_statistics
from vla.cache.texts import FILE as LANGUAGE_FILE
from vla.cache.texts import language_command, language_damage

SAME = 1e-6
"""Statistics may differ by so much, relatively: numpy's order of sums may change."""


def cache_problems(path: Path) -> list[str]:
    """List what is wrong with a cache, a line a problem with what to run next.

    Args:
        path: a cache, or a folder that holds one.

    Raises:
        CacheError: there is no finished cache.
    """
    folder = find_cache(path)
    try:
        metadata = read_metadata(folder)
    except CacheError as error:
        return [str(error)]
    problems = list(_unknown_files(folder, metadata))
    damaged = False
    with Progress("verify", len(metadata.shards), unit="shards") as progress:
        for number, shard in enumerate(metadata.shards):
            found = list(_shard_problems(folder, metadata, number))
            damaged |= bool(found)
            problems += [f"shard {folder / shard.file} {what}; {repair_hint(folder)}" for what in found]
            progress.update()
    if metadata.language is not None and (wrong_texts := language_damage(folder, metadata.language)):
        again = f"make it again, no image is encoded: {language_command(folder)}"
        problems.append(f"{folder / LANGUAGE_FILE} {wrong_texts}; {again}")
    if not damaged:
        remake = f"delete cache.json and make it again, nothing is encoded: {repair_command(folder)}"
        wrong = _statistics_problems(folder, metadata)
        problems += [f"{folder / 'cache.json'} {what}; {remake}" for what in wrong]
    return problems


def _unknown_files(folder: Path, metadata: CacheMetadata) -> Iterator[str]:
    known = {shard.file for shard in metadata.shards}
    for path in sorted((folder / "shards").iterdir() if (folder / "shards").is_dir() else ()):
        if f"shards/{path.name}" not in known:
            yield f"{path} is not listed in cache.json; if no `vla embed` is at work here, delete it"


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
    yield from values_not_finite(shard)
    first = planned.header.first_frame
    episode, frame = _places(metadata, range(first, first + planned.header.frames))
    for name, due in (("episode_index", episode), ("frame_index", frame)):
        if not np.array_equal(shard[name].numpy(), due):
            row = int(np.argmax(shard[name].numpy() != due))
            yield (
                f"has {name} {int(shard[name][row])} where cache.json has episode {episode[row]}, "
                f"frame {frame[row]}"
            )


def _places(metadata: CacheMetadata, frames: range) -> tuple[np.ndarray, np.ndarray]:
    """Return episode and frame within it of some frames, as the header numbers them."""
    firsts = np.array([episode.first_frame for episode in metadata.episodes])
    indices = np.array([episode.index for episode in metadata.episodes])
    numbers = np.arange(frames.start, frames.stop)
    position = np.searchsorted(firsts, numbers, side="right") - 1
    return indices[position], numbers - firsts[position]


def _statistics_problems(folder: Path, metadata: CacheMetadata) -> Iterator[str]:
    """Compute the statistics again; asks for whole shards."""
    shards = [map_shard(folder / s.file, metadata.layout(k)) for k, s in enumerate(metadata.shards)]
    for name in ("state", "action"):
        found = vector_statistics(np.concatenate([shard[name].numpy() for shard in shards]))
        if not _same(found, getattr(metadata, f"{name}_statistics")):
            yield f"has {name}_statistics that are not those of its shards"
    for camera in metadata.camera_names:
        parts = (shard[f"features.{camera}"].numpy() for shard in shards)
        if not _same(feature_statistics(parts), metadata.feature_statistics[camera]):
            yield f"has feature_statistics of '{camera}' that are not those of its shards"


def _same(found: VectorStatistics | FeatureStatistics, stored: VectorStatistics | FeatureStatistics) -> bool:
    pairs = zip(found.model_dump().values(), stored.model_dump().values(), strict=True)
    return all(np.allclose(one, other, rtol=SAME, atol=SAME) for one, other in pairs)
