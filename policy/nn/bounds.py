"""Bounds of what a live policy is told: a little beyond what the demonstrations held, and no further."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

MARGIN = 0.1
"""Of a dimension's range, on either side."""
UNBOUNDED = torch.finfo(torch.float32).max
"""Not infinity: the moving average of the weights averages bounds too, and inf - inf is no number."""


class Bounds(nn.Module):
    """Clamp values to the range of the demonstrations with a margin; the identity until fitted."""

    lowest: Tensor
    highest: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("lowest", torch.full((dim,), -UNBOUNDED))
        self.register_buffer("highest", torch.full((dim,), UNBOUNDED))

    def fit(self, lowest: Sequence[float], highest: Sequence[float]) -> None:
        """Take the smallest and largest value of each dimension, in the data's units.

        A dimension that never moved gets no margin: whatever is measured there, the policy is told what it
        was told in training.
        """
        smallest, largest = torch.tensor(lowest), torch.tensor(highest)
        margin = MARGIN * (largest - smallest)
        self.lowest.copy_(smallest - margin)
        self.highest.copy_(largest + margin)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return torch.clamp(x, self.lowest, self.highest)
