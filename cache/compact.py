"""Rewrite the parts of a cache as one, with the bytes that it would have had if it had been made at once."""

import shutil
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from vla.base.errors import CacheError
from vla.base.progress import Progress
from vla.cache.jpeg import ENDS
from vla.cache.manifest import remove_old_tables, write_manifest
from vla.cache.metadata import CacheMetadata
from vla.cache.part import PartSpec
from vla.cache.part_writer import PartWriter
from vla.cache.reader import FeatureCache


def compact(folder: Path) -> CacheMetadata:
    """Copy the listed episodes into one part and remove all others; nothing is encoded.

    Whoever calls holds the cache's lock. Interrupted work goes on when called again. Processes that have
    the cache open keep what they have read or mapped, and cannot map more of it afterwards.

    Args:
        folder: a finished cache of format 3.

    Raises:
        CacheError: it is of an earlier format, or a shard is damaged; nothing is changed.
    """
    cache = FeatureCache(folder)
    made = cache.metadata
    if made.format_version < 3:
        raise CacheError(f"{folder} is of format {made.format_version}, which has no parts; nothing to do")
    part, firsts = _whole(made)
    writer = PartWriter(folder, part, made.dataset.path)
    writer.remove_leftovers()
    if made.parts != (part.part,):
        cache.require_checksums()
        copy_part(cache, writer, firsts, "compact")
        made = write_manifest(
            folder,
            [part],
            dataset=made.dataset,
            encoders=made.encoders,
            augmentation=made.augmentation,
            episodes=tuple(made.episodes),
            contents=[row.tobytes() for row in made.episodes.content],
            texts=made.texts,
        )
    remove_old_tables(folder)
    for other in sorted((folder / "parts").iterdir()):
        if other.name != part.id:
            shutil.rmtree(other)
    return made


def copy_part(cache: FeatureCache, writer: PartWriter, firsts: Int64[Tensor, "episodes"], label: str) -> None:
    """Write the shards of a part that are missing from what a cache holds, and finish it.

    Args:
        cache: holds all episodes of the part, in the same streams.
        writer: of the part.
        firsts: the number of each episode's first frame in the cache.
        label: of the progress.
    """
    part = writer.part
    writer.begin()
    missing = writer.missing_shards()
    with Progress(label, sum(len(part.frame_range(k)) for k in missing), unit="frames") as progress:
        for shard in missing:
            arrays = writer.allocate(shard)
            frames = firsts[arrays["episode_index"]] + torch.from_numpy(arrays["frame_index"])
            for stream in part.streams:
                if stream.jpeg_quality is not None:  # encoded once more they would be other images
                    arrays[stream.name], arrays[stream.name + ENDS] = cache.jpeg_files(stream.name, frames)
                elif stream.made_by is None:
                    arrays[stream.name][:] = cache.rows(stream.name, frames).numpy()
                else:
                    for variant in range(part.variants):
                        which = torch.full_like(frames, variant)
                        arrays[stream.name][:, variant] = cache.rows(stream.name, frames, which).numpy()
            writer.write(shard, arrays)
            progress.update(len(frames))
    writer.finish()


def _whole(made: CacheMetadata) -> tuple[PartSpec, Int64[Tensor, "episodes"]]:
    """Return the one part of all listed episodes, and the number of each one's first frame in the cache."""
    table = made.episodes
    first_of: dict[bytes, int] = {}
    for position, row in enumerate(table.content):
        first_of.setdefault(row.tobytes(), position)
    positions = list(first_of.values())
    part = PartSpec(
        recipe=made.recipe,
        streams=made.streams,
        variants=made.variants,
        contents=tuple(first_of),
        lengths=tuple(table.length[positions].tolist()),
        frames_per_shard=made.parts[int(table.part[0])].frames_per_shard,
    )
    return part, torch.from_numpy(table.first_frame[positions])
