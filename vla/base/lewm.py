"""What a LEWM encoder is, for those who train it and those who freeze it: LeWorldModel, arXiv 2603.19312.

    views    uint8 [n, h, w, 3] each    what the cameras show, in a stated order
       │ fuse: side by side (row), one below the other (column), or two a row (grid)
    image    uint8 [n, H, W, 3]
       │ prepare: ImageNet's mean and standard deviation, then the shorter side to `image_size` pixels
    pixels   float [n, 3, H', W']
       │ LewmVision: ViT, its CLS token after the last norm, projector with BatchNorm
    feature  float [n, dim]             192 in the paper

The paper has one camera. Of several, one image is made; the ViT's positions are interpolated to its shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vla.base.strict import StrictModel, Width

Layout = Literal["row", "column", "grid"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD_DIM = 64
"""Of each attention head, in ViT-tiny, -small and -base alike; a checkpoint's tensors do not say it."""


class LewmInput(StrictModel):
    """What a LEWM encoder looks at: `config.json` beside weights that `vla pretrain lewm` wrote."""

    model_type: Literal["lewm"] = "lewm"
    cameras: Annotated[tuple[str, ...], Field(min_length=1)]
    """In the order in which their views are fused."""
    layout: Layout
    view_size: tuple[Width, Width]
    """Height and width [pixel] of each view before they are fused."""
    image_size: Width
    """Shorter side [pixel] of the fused image that the ViT sees."""


@dataclass(frozen=True, kw_only=True)
class VisionSizes:
    """Sizes of a ViT and its projector; the defaults are the paper's: ViT-tiny, 192 numbers."""

    width: int = 192
    depth: int = 12
    mlp: int = 768
    patch: int = 14
    """Side of a patch [pixel]."""
    grid: int = 16
    """Patches along each side of the image that positions are learned for."""
    projector: int = 2048
    dim: int = 192
    """Of the feature."""


class Projector(nn.Module):
    """Linear, BatchNorm, GELU, linear: a ViT's last norm would keep features from being Gaussian.

    Args:
        width: in.
        hidden: between.
        dim: out.
    """

    def __init__(self, width: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, dim)
        )

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n dim"]:
        return self.net(x)


class LewmVision(nn.Module):
    """A ViT and a projector, named as in the checkpoints of LeWorldModel: `encoder.*`, `projector.net.*`.

    Args:
        sizes: of both.
    """

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTModel  # seconds

        config = ViTConfig(
            hidden_size=sizes.width,
            num_hidden_layers=sizes.depth,
            num_attention_heads=sizes.width // HEAD_DIM,
            intermediate_size=sizes.mlp,
            patch_size=sizes.patch,
            image_size=sizes.patch * sizes.grid,
        )
        self.sizes = sizes
        self.encoder: nn.Module = ViTModel(config, add_pooling_layer=False)
        self.projector = Projector(sizes.width, sizes.projector, sizes.dim)

    def forward(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        output: Any = self.encoder(pixel_values=pixels, interpolate_pos_encoding=True)
        # The ViT may compute in half precision; the projector does not.
        return self.projector(output.last_hidden_state[:, 0].to(next(self.projector.parameters()).dtype))


def fuse(views: Sequence[UInt8[Tensor, "n h w 3"]], layout: Layout) -> UInt8[Tensor, "n H W 3"]:
    """Make one image of several views of the same instants.

    Args:
        views: of each camera, in order; of one size.
        layout: `row` is left to right, `column` top to bottom, `grid` two a row from the top left; where one
            is missing there, it is black.
    """
    if layout != "grid":
        return torch.cat(list(views), dim=2 if layout == "row" else 1)
    tiles = [*views, torch.zeros_like(views[0])] if len(views) % 2 else list(views)
    rows = [torch.cat(tiles[k : k + 2], dim=2) for k in range(0, len(tiles), 2)]
    return torch.cat(rows, dim=1)


def prepare(image: UInt8[Tensor, "n H W 3"], image_size: int) -> Float[Tensor, "n 3 _h _w"]:
    """Normalise by ImageNet's statistics and bring the shorter side to `image_size`, as LEWM does.

    In this order, and in float32: it is bilinear with antialiasing, and keeps the aspect ratio. The longer
    side is rounded down to whole pixels.
    """
    mean, std = (torch.tensor(values, device=image.device) for values in (MEAN, STD))
    pixels = ((image.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    height, width = image.shape[1:3]
    short = min(height, width)
    size = (image_size * height // short, image_size * width // short)
    if size == (height, width):
        return pixels
    return functional.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
