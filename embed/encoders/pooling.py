"""What is kept of a view, out of a vision tower's pooled feature and the tokens of its patches.

    pooled         the checkpoint's own feature of the whole image
    mean           the mean of all patch tokens
    grid3, grid6x8 the means of the patch tokens in each cell of a grid, rows x columns: 9 and 48 tokens
    patches        all patch tokens

Every tower has all of them. A grid has a fixed number of tokens, which are the same place of the image in
every frame; why they are not chosen by content: docs/decisions/0022.
"""

import re
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import AfterValidator
from torch import Tensor
from torch.nn import functional

from vla.base.errors import EncoderError

GRID = re.compile(r"grid([1-9]\d?)(?:x([1-9]\d?))?")


def canonical(pooling: str) -> str:
    """Return the one name of a pooling: `grid4x4` is `grid4`, `grid1` is `mean`.

    Raises:
        ValueError: there is none of that name.
    """
    if pooling in ("pooled", "mean", "patches"):
        return pooling
    if not (found := GRID.fullmatch(pooling)):
        raise ValueError(
            f"'{pooling}' is nothing that can be kept of a view; pooled, mean, patches, or a grid of up to "
            "99 rows and columns such as grid4 (16 tokens) or grid6x8 (48 tokens)"
        )
    rows, columns = found[1], found[2] or found[1]
    if rows != columns:
        return f"grid{rows}x{columns}"
    return "mean" if rows == "1" else f"grid{rows}"


Pooling = Annotated[str, AfterValidator(canonical)]


def cells_of(pooling: str) -> tuple[int, int]:
    """Return the rows and columns of a grid; the mean is one of a single cell."""
    if pooling == "mean":
        return 1, 1
    found = GRID.fullmatch(pooling)
    assert found is not None, pooling
    return int(found[1]), int(found[2] or found[1])


def num_tokens(pooling: str, side: int) -> int:
    """Return how many vectors of a view are kept.

    Args:
        pooling: a canonical name.
        side: patches along each edge of the image.

    Raises:
        EncoderError: the grid has more cells along an edge than there are patches.
    """
    if pooling == "pooled":
        return 1
    if pooling == "patches":
        return side**2
    rows, columns = cells_of(pooling)
    if max(rows, columns) > side:
        raise EncoderError(
            f"{pooling} has more cells along an edge than the {side} x {side} patches of this encoder; "
            f"choose a coarser grid, or --pool patches for all {side**2}"
        )
    return rows * columns


def pool(patches: Float[Tensor, "n patches dim"], pooling: str) -> Float[Tensor, "n tokens dim"]:
    """Reduce the patch tokens of each image.

    Args:
        patches: of a square of patches, in rows from the top left.
        pooling: which reduction, other than `pooled`, which is none of patches.
    """
    if pooling == "patches":
        return patches
    side = round(patches.shape[1] ** 0.5)
    maps = patches.transpose(1, 2).unflatten(2, (side, side))
    # In float32: half-precision sums of many patches lose digits. Where the cells do not divide the patches
    # evenly, neighbours share a row.
    cells = functional.adaptive_avg_pool2d(maps.to(torch.float32), cells_of(pooling))
    return cells.flatten(2).transpose(1, 2)
