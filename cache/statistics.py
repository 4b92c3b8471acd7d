"""Statistics of a cache, in float64 and in frame order, so that the same frames give the same figures.

Streams fall into two kinds. Vectors of the dataset (state, action) are small: their statistics, quantiles
among them, are computed from all values of the listed episodes, some channels at a time, and do not depend
on how those are spread over parts. Of all other streams each part keeps `Moments`, which merge without
reading a frame (Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances, 1979).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from vla.base.strict import StrictModel
from vla.cache.episodes import Count
from vla.cache.metadata import Floats, Statistics
from vla.cache.stream import Stream

COLUMN_BYTES = 256 << 20
"""Memory for channels of vectors while their statistics are computed; a single one may need more."""


class Moments(StrictModel):
    """Of one stream per channel, in a form that merges."""

    count: Count
    """Values of a channel."""
    mean: Floats
    m2: Floats
    """Sum of squared distances from the mean."""
    min: Floats
    max: Floats

    def statistics(self) -> Statistics:
        """Return what `cache.json` says."""
        std = np.sqrt(np.array(self.m2) / self.count)
        return Statistics(count=self.count, mean=self.mean, std=_floats(std), min=self.min, max=self.max)


def has_moments(stream: Stream) -> bool:
    """Tell whether parts keep moments of a stream; vectors of the dataset are read again instead."""
    return stream.kind != "vector" or stream.made_by is not None


def moments_of(stream: Stream, shards: Iterable[np.ndarray]) -> Moments:
    """Summarise one stream per channel, an array [frames, (variants,) *shape] at a time."""
    if stream.dtype == "uint8":
        return _of_bytes(shards)
    return _in_passes(shard.reshape(-1, stream.channels) for shard in shards)


def merged(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all values together."""
    count, mean, m2 = parts[0].count, np.array(parts[0].mean), np.array(parts[0].m2)
    for part in parts[1:]:
        delta, total = np.array(part.mean) - mean, count + part.count
        mean = mean + delta * (part.count / total)
        m2 = m2 + np.array(part.m2) + delta**2 * (count * part.count / total)
        count = total
    lowest, highest = (np.array([getattr(part, name) for part in parts]) for name in ("min", "max"))
    return Moments(
        count=count,
        mean=_floats(mean),
        m2=_floats(m2),
        min=_floats(lowest.min(0)),
        max=_floats(highest.max(0)),
    )


def vector_statistics(pieces: Sequence[np.ndarray]) -> Statistics:
    """Summarise state or action over all frames, quantiles included.

    Args:
        pieces: arrays [frames, dim], which may lie in mapped files.
    """
    frames, dim = sum(map(len, pieces)), pieces[0].shape[1]
    width = max(1, COLUMN_BYTES // (8 * frames))
    found: dict[str, list[float]] = {name: [] for name in ("mean", "std", "min", "max", "q01", "q99")}
    for first in range(0, dim, width):
        exact = np.concatenate([piece[:, first : first + width] for piece in pieces]).astype(np.float64)
        q01, q99 = np.quantile(exact, [0.01, 0.99], axis=0)
        columns = (exact.mean(0), exact.std(0), exact.min(0), exact.max(0), q01, q99)
        for values, column in zip(found.values(), columns, strict=True):
            values += column.tolist()
    return Statistics(count=frames, **{name: tuple(values) for name, values in found.items()})


def _in_passes(parts: Iterable[np.ndarray]) -> Moments:
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
    m2 = np.maximum(squares - count * offset**2, 0.0)
    return Moments(
        count=count, mean=_floats(shift + offset), m2=_floats(m2), min=_floats(lowest), max=_floats(highest)
    )


def _of_bytes(parts: Iterable[np.ndarray]) -> Moments:
    """Summarise bytes by counting each of their 256 values: exact, and quick for images."""
    counts = np.zeros((0, 256), np.int64)
    for part in parts:
        channels = [np.bincount(part[..., c].ravel(), minlength=256) for c in range(part.shape[-1])]
        counts = np.stack(channels) + (counts if len(counts) else 0)
    values, n = np.arange(256), counts[0].sum()
    mean = counts @ values / n
    m2 = np.maximum(counts @ values**2 - n * mean**2, 0.0)
    there = [np.flatnonzero(channel) for channel in counts]
    return Moments(
        count=int(n),
        mean=_floats(mean),
        m2=_floats(m2),
        min=tuple(float(found[0]) for found in there),
        max=tuple(float(found[-1]) for found in there),
    )


def _floats(values: np.ndarray) -> Floats:
    return tuple(values.tolist())
