"""Standardise vectors with the statistics of a cache, and back."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.cache.movement import movement


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

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return (x - self.mean) / self.std

    def invert(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Map standardised values back to the data's units."""
        return x * self.std + self.mean
