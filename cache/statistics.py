"""Statistics of a cache, in float64 and in frame order, so that the same frames give the same figures."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float16, Float32

from vla.cache.metadata import FeatureStatistics, VectorStatistics


def vector_statistics(values: Float32[np.ndarray, "frames dim"]) -> VectorStatistics:
    """Summarise state or action over all frames."""
    exact = values.astype(np.float64)
    q01, q99 = np.quantile(exact, [0.01, 0.99], axis=0)
    return VectorStatistics(
        min=tuple(exact.min(0).tolist()),
        max=tuple(exact.max(0).tolist()),
        mean=tuple(exact.mean(0).tolist()),
        std=tuple(exact.std(0).tolist()),
        q01=tuple(q01.tolist()),
        q99=tuple(q99.tolist()),
        count=len(exact),
    )


def feature_statistics(
    shards: Iterable[Float16[np.ndarray, "frames variants tokens dim"]],
) -> FeatureStatistics:
    """Summarise one camera's features, a shard at a time.

    The sum of squares is taken about the first shard's mean: about zero it would cancel for features
    whose mean is large against their spread.
    """
    count, shift, total, squares = 0, None, None, None
    for shard in shards:
        rows = shard.reshape(-1, shard.shape[-1]).astype(np.float64)
        if shift is None or total is None or squares is None:
            shift = rows.mean(0)
            total, squares = np.zeros_like(shift), np.zeros_like(shift)
        centred = rows - shift
        count += len(rows)
        total += centred.sum(0)
        squares += (centred**2).sum(0)
    if shift is None or total is None or squares is None:
        raise ValueError("no shards to summarise")
    offset = total / count
    variance = np.maximum(squares / count - offset**2, 0.0)
    return FeatureStatistics(mean=tuple((shift + offset).tolist()), std=tuple(np.sqrt(variance).tolist()))
