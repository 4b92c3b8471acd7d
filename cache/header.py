"""Does `cache.json` agree with itself? A header may be exchanged, edited, or made up."""

from collections.abc import Iterator

from vla.cache.metadata import CacheMetadata
from vla.cache.shard import POSITIONS
from vla.cache.stream import ACTION


def header_problems(metadata: CacheMetadata, due_fingerprint: str) -> Iterator[str]:
    """Say in words where a header contradicts itself.

    Args:
        metadata: what it says.
        due_fingerprint: that follows from what it says.
    """
    if metadata.fingerprint != due_fingerprint:
        yield f"has fingerprint {metadata.fingerprint}, what it says of itself gives {due_fingerprint}"
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
    if metadata.texts is not None and metadata.texts.tasks != metadata.tasks:
        yield "has features of other task texts than its episodes have"
    yield from _stream_problems(metadata)
    yield from _shard_problems(metadata)


def _stream_problems(metadata: CacheMetadata) -> Iterator[str]:
    names = [stream.name for stream in metadata.streams]
    if len(set(names)) != len(names) or set(names) & set(POSITIONS):
        yield "has two streams of the same name"
        return
    if ACTION not in names:
        yield f"has no stream '{ACTION}'"
        return
    for digest, encoder in metadata.encoders.items():
        if encoder.digest != digest:
            yield f"calls an encoder {digest} that is {encoder.digest}"
    if {stream.made_by for stream in metadata.streams} - {None} != metadata.encoders.keys():
        yield "has streams of other encoders than it names"
    if metadata.statistics.keys() != set(names):
        yield "has statistics of other streams than it has"
        return
    for stream in metadata.streams:
        for key, values in metadata.statistics[stream.name].model_dump(exclude={"count"}).items():
            if values is not None and len(values) != stream.channels:
                yield (f"has {len(values)} values in statistics.{stream.name}.{key}, not {stream.channels}")
                return


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
