"""Does `cache.json` agree with itself? A header may be exchanged, edited, or made up."""

from collections.abc import Iterator

from vla.cache.metadata import CacheMetadata, fingerprint


def header_problems(metadata: CacheMetadata) -> Iterator[str]:
    """Say in words where a header contradicts itself."""
    due = fingerprint(
        metadata.dataset,
        metadata.encoder,
        metadata.preprocessing,
        metadata.camera_names,
        metadata.augmentation,
    )
    if metadata.fingerprint != due:
        yield f"has fingerprint {metadata.fingerprint}, what it says of itself gives {due}"
    first = 0
    for episode in metadata.episodes:
        if episode.first_frame != first:
            yield f"starts episode {episode.index} at frame {episode.first_frame}, not {first}"
            break
        first += episode.length
    else:
        if first != metadata.num_frames:
            yield f"has episodes of {first} frames together, num_frames says {metadata.num_frames}"
    if len({episode.index for episode in metadata.episodes}) != len(metadata.episodes):
        yield "has two episodes of the same number"
    if len(set(metadata.camera_names)) != len(metadata.camera_names):
        yield "has two cameras of the same name"
    if metadata.language is not None and metadata.language.tasks != metadata.tasks:
        yield "has features of other task texts than its episodes have"
    yield from _shard_problems(metadata)
    yield from _statistics_problems(metadata)


def _shard_problems(metadata: CacheMetadata) -> Iterator[str]:
    """Shards are numbered through, and all are full but the last."""
    count = -(-metadata.num_frames // metadata.frames_per_shard)
    if len(metadata.shards) != count:
        yield f"lists {len(metadata.shards)} shards, {metadata.num_frames} frames make {count}"
        return
    for number, shard in enumerate(metadata.shards):
        first = number * metadata.frames_per_shard
        frames = min(metadata.frames_per_shard, metadata.num_frames - first)
        if (shard.file, shard.frames) != (f"shards/{number:05d}.safetensors", frames):
            yield f"lists shard {number} as {shard.file} with {shard.frames} frames, not {frames}"
            return


def _statistics_problems(metadata: CacheMetadata) -> Iterator[str]:
    for name, dim in (("state", metadata.state_dim), ("action", metadata.action_dim)):
        found = getattr(metadata, f"{name}_statistics")
        for key in ("min", "max", "mean", "std", "q01", "q99"):
            if len(getattr(found, key)) != dim:
                yield f"has {len(getattr(found, key))} values in {name}_statistics.{key}, not {dim}"
                return
    if metadata.feature_statistics.keys() != set(metadata.camera_names):
        yield "has statistics of other cameras than it has features of"
        return
    for camera, features in metadata.feature_statistics.items():
        if {len(features.mean), len(features.std)} != {metadata.encoder.feature_dim}:
            due = metadata.encoder.feature_dim
            yield f"has {len(features.mean)} values in feature_statistics.{camera}, not {due}"
