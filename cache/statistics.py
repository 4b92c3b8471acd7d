"""Statistics of a cache, in float64 and in frame order, so that the same frames give the same figures."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32

from vla.cache.metadata import Statistics
from vla.cache.stream import Stream


def stream_statistics(stream: Stream, shards: Sequence[np.ndarray]) -> Statistics:
    """Summarise one stream per channel.

    Args:
        stream: of which kind it is.
        shards: its array in each shard, [frames, (variants,) *shape].
    """
    if stream.dtype == "uint8":
        return _of_bytes(shards)
    if stream.kind == "vector" and stream.made_by is None:
        return vector_statistics(np.concatenate(list(shards)))
    return _in_passes(shard.reshape(-1, stream.channels) for shard in shards)


def vector_statistics(values: Float32[np.ndarray, "frames dim"]) -> Statistics:
    """Summarise state or action over all frames, quantiles included."""
    exact = values.astype(np.float64)
    q01, q99 = np.quantile(exact, [0.01, 0.99], axis=0)
    return Statistics(
        count=len(exact),
        mean=tuple(exact.mean(0).tolist()),
        std=tuple(exact.std(0).tolist()),
        min=tuple(exact.min(0).tolist()),
        max=tuple(exact.max(0).tolist()),
        q01=tuple(q01.tolist()),
        q99=tuple(q99.tolist()),
    )


def _in_passes(parts: Iterable[np.ndarray]) -> Statistics:
    """Summarise rows [n, channels], a shard at a time.

    The sum of squares is taken about the first shard's mean: about zero it would cancel for features
    whose mean is large against their spread.
    """
    count = 0
    shift = total = squares = lowest = highest = np.zeros(0)
    for part in parts:
        rows = part.astype(np.float64)
        if not count:
            shift = rows.mean(0)
            total, squares = np.zeros_like(shift), np.zeros_like(shift)
            lowest, highest = rows.min(0), rows.max(0)
        centred = rows - shift
        count += len(rows)
        total += centred.sum(0)
        squares += (centred**2).sum(0)
        lowest, highest = np.minimum(lowest, rows.min(0)), np.maximum(highest, rows.max(0))
    offset = total / count
    variance = np.maximum(squares / count - offset**2, 0.0)
    return Statistics(
        count=count,
        mean=tuple((shift + offset).tolist()),
        std=tuple(np.sqrt(variance).tolist()),
        min=tuple(lowest.tolist()),
        max=tuple(highest.tolist()),
    )


def _of_bytes(parts: Iterable[np.ndarray]) -> Statistics:
    """Summarise bytes by counting each of their 256 values: exact, and quick for images."""
    counts = np.zeros((0, 256), np.int64)
    for part in parts:
        channels = [np.bincount(part[..., c].ravel(), minlength=256) for c in range(part.shape[-1])]
        counts = np.stack(channels) + (counts if len(counts) else 0)
    values, n = np.arange(256), counts[0].sum()
    mean = counts @ values / n
    std = np.sqrt(np.maximum(counts @ values**2 / n - mean**2, 0.0))
    there = [np.flatnonzero(channel) for channel in counts]
    return Statistics(
        count=int(n),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        min=tuple(float(found[0]) for found in there),
        max=tuple(float(found[-1]) for found in there),
    )
