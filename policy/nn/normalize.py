"""Standardise vectors with the statistics of a cache, and back."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

SMALLEST_STD = 1e-6


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

        A dimension that never moved in the data has no scale: it is shifted only, so that it maps to 0
        and any later motion stays in its own units.
        """
        spread = torch.tensor(std)
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.where(spread > SMALLEST_STD, spread, torch.ones_like(spread)))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return (x - self.mean) / self.std

    def invert(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Map standardised values back to the data's units."""
        return x * self.std + self.mean
