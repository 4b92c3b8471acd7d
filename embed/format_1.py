"""Caches that were embedded in format 1 and are not embedded again."""

from pathlib import Path

import torch

from vla.base.errors import CacheError
from vla.base.progress import say
from vla.cache import CacheSpec, CacheWriter, FeatureCache, version1


def cache_of_format_1(folder: Path, spec: CacheSpec) -> FeatureCache | None:
    """Find a finished cache of format 1 that holds what a cache is planned to."""
    (encoder,) = spec.encoders.values()
    cameras = tuple(stream.name for stream in spec.streams if stream.made_by)
    if encoder.type != "siglip" or len(spec.streams) != len(cameras) + 2:  # state and action
        return None
    due = version1.fingerprint(spec.dataset, encoder, cameras, spec.augmentation)
    for header in sorted(folder.glob(f"*-{due}/cache.json")):
        try:
            cache = FeatureCache(header.parent)
            cache.require_checksums()
        except CacheError as error:
            say(f"{header.parent} is of an earlier format and damaged, it is made anew: {error}")
        else:
            return cache
    return None


def copy_cache(earlier: FeatureCache, writer: CacheWriter) -> None:
    """Write the shards of a cache of format 1 in the present format; nothing is encoded."""
    spec = writer.spec
    for shard in writer.missing_shards():
        arrays, frames = writer.allocate(shard), torch.tensor(spec.frame_range(shard))
        for stream in spec.streams:
            if stream.made_by is None:
                arrays[stream.name][:] = earlier.rows(stream.name, frames).numpy()
            for variant in range(spec.variants) if stream.made_by else ():
                which = torch.full_like(frames, variant)
                arrays[stream.name][:, variant] = earlier.rows(stream.name, frames, which).numpy()
        writer.write(shard, arrays)
