"""What is kept of a view: one pooled vector, or several that still know where things are."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vla.cache.metadata import Pooling

GRID = {"mean": 1, "grid2": 2, "grid4": 4}
"""Cells along each side."""


def num_tokens(pooling: Pooling, patches: int) -> int:
    """Return how many vectors of a view are kept, out of its number of patches."""
    if pooling == "pooled":
        return 1
    return patches if pooling == "patches" else GRID[pooling] ** 2


def pool(output: Any, pooling: Pooling) -> Float[Tensor, "n tokens dim"]:
    """Reduce a vision tower's output.

    Args:
        output: with `pooler_output` [n, dim] and `last_hidden_state` [n, patches, dim], the patches in
            rows from the top left.
        pooling: which reduction.
    """
    if pooling == "pooled":
        pooled: Tensor = output.pooler_output
        return pooled[:, None]
    patches: Tensor = output.last_hidden_state
    if pooling == "patches":
        return patches
    side = round(patches.shape[1] ** 0.5)
    maps = patches.transpose(1, 2).unflatten(2, (side, side))
    # In float32: half-precision sums of many patches lose digits.
    cells = functional.adaptive_avg_pool2d(maps.to(torch.float32), GRID[pooling])
    return cells.flatten(2).transpose(1, 2)
