"""Standardise vectors with the statistics of a cache, and back.

mean_std   zero mean, unit standard deviation
quantile   -1 and 1 are the values that 1 % of the demonstrations are below and above
min_max    -1 and 1 are the smallest and largest value
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.base.errors import ConfigError
from vla.cache.metadata import Statistics
from vla.cache.movement import movement

Normalization = Literal["mean_std", "quantile", "min_max"]


class Standardize(nn.Module):
    """Map values to zero mean and unit standard deviation per dimension; the identity until fitted.

    The statistics are buffers, so they travel in the policy's weight file.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take statistics, in the data's units.

        What hardly moved beside the other dimensions is measured on a share of their scale, and what never
        did on their scale: an encoder's last digit is no standard deviation. See `vla.cache.movement`.
        """
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(movement(mean, std).scale))

    def fit_as(self, statistics: Statistics, how: Normalization) -> None:
        """Take what `how` asks for of a stream's statistics.

        Raises:
            ConfigError: they do not say it.
        """
        if how == "mean_std":
            return self.fit(statistics.mean, statistics.std)
        quantile = how == "quantile"
        low, high = (statistics.q01, statistics.q99) if quantile else (statistics.min, statistics.max)
        if low is None or high is None:
            raise ConfigError(
                f"policy.normalization = {how} needs {'quantiles' if quantile else 'ranges'}, which "
                "the statistics of this cache do not have; take mean_std, or embed again"
            )
        middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
        # A dimension that is at one value in all but 1 % of the frames has no quantiles to speak of.
        half = [max((b - a) / 2, s) for a, b, s in zip(low, high, statistics.std, strict=True)]
        still = movement(statistics.mean, statistics.std).constant
        center = [m if rests else c for m, c, rests in zip(statistics.mean, middle, still, strict=True)]
        spread = [s if rests else h for s, h, rests in zip(statistics.std, half, still, strict=True)]
        return self.fit(center, spread)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return (x - self.mean) / self.std

    def invert(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Map standardised values back to the data's units."""
        return x * self.std + self.mean
