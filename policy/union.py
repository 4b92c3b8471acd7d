"""Statistics of a union from those of its parts."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vla.cache import Statistics
from vla.policy.nn.normalize import Standardize

EXTREMES = ("min", "max", "q01", "q99")


def union_statistics(
    parts: Sequence[Statistics], values: Sequence[Float[Tensor, "_frames dim"]] | None = None
) -> Statistics:
    """Return the statistics of all values together.

    Means and spreads are merged as Chan, Golub and LeVeque do (Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances, 1979): about one part's mean, without cancellation.

    Args:
        parts: of each part.
        values: the values themselves, for quantiles; without them there are none.
    """
    counts = np.array([part.count for part in parts], np.float64)[:, None]
    means, stds = (np.array([getattr(part, name) for part in parts]) for name in ("mean", "std"))
    total = counts.sum()
    mean = means[0] + (counts * (means - means[0])).sum(0) / total
    variance = (counts * (stds**2 + (means - mean) ** 2)).sum(0) / total
    q01, q99 = _quantiles(values) if values is not None else (None, None)
    return Statistics(
        count=int(total),
        mean=tuple(mean.tolist()),
        std=tuple(np.sqrt(variance).tolist()),
        min=_extreme([part.min for part in parts], np.min),
        max=_extreme([part.max for part in parts], np.max),
        q01=q01,
        q99=q99,
    )


def scaled(statistics: Statistics, scale: Standardize) -> Statistics:
    """Return the statistics of values that were standardised."""
    places = {
        name: tuple(scale(torch.tensor(found, dtype=torch.float64)).tolist())
        for name in ("mean", *EXTREMES)
        if (found := getattr(statistics, name)) is not None
    }
    spread = torch.tensor(statistics.std, dtype=torch.float64) / scale.std
    return Statistics(count=statistics.count, std=tuple(spread.tolist()), **places)


def _extreme(
    found: Sequence[tuple[float, ...] | None], choose: Callable[..., np.ndarray]
) -> tuple[float, ...] | None:
    """Return the extremes of all parts; None where a part, of a cache of format 1, does not say."""
    known = [values for values in found if values is not None]
    if len(known) < len(found):
        return None
    return tuple(choose(np.array(known), axis=0).tolist())


def _quantiles(values: Sequence[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the quantiles of all rows, a channel at a time: memory holds one."""
    channels = [
        np.quantile(torch.cat([part[:, c] for part in values]).double().numpy(), [0.01, 0.99])
        for c in range(values[0].shape[1])
    ]
    return tuple(float(low) for low, _ in channels), tuple(float(high) for _, high in channels)
