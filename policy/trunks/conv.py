"""The convolutional trunk: images to keypoints, and those to one vector; or to a grid of tokens.

As in visuomotor policies since Levine et al. (arXiv 1504.00702): strided convolutions, then a spatial
softmax, which says where each channel responds. Group normalisation, because batches are of few episodes.

B batch, T_obs obs_horizon, K channels of the last layer, D width.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from vla.base.strict import Width
from vla.cache.metadata import Statistics
from vla.cache.stream import Kind, Stream
from vla.policy.nn.normalize import Standardize
from vla.policy.trunks.trunk import Trunk, TrunkConfig

GROUPS = 8
SMALLEST_MAP = 8


class ConvConfig(TrunkConfig):
    """A small convolutional network on images or depth maps."""

    kinds: ClassVar[tuple[Kind, ...]] = ("image", "depth")
    type: Literal["conv"] = "conv"
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (32, 64, 128, 128)
    """Of the layers; each halves height and width, down to 8 pixels."""
    output: Literal["keypoints", "grid"] = "keypoints"
    """One token that says where each channel responds, or the last map as a grid of tokens."""

    def build(self, stream: Stream, dim: int) -> "ConvTrunk":
        return ConvTrunk(stream, dim, self)


class ConvTrunk(Trunk):
    """Find keypoints in an image or depth map and project their positions.

    Args:
        stream: of kind image or depth.
        dim: D.
        config: layers.
    """

    def __init__(self, stream: Stream, dim: int, config: ConvConfig) -> None:
        layers: list[nn.Module] = []
        width, size, sides = stream.channels, min(stream.shape[:2]), list(stream.shape[:2])
        for channels in config.channels:
            # A map of one pixel would have no positions left to tell.
            stride = 2 if size // 2 >= SMALLEST_MAP else 1
            size //= stride
            sides = [(side + stride - 1) // stride for side in sides]
            layers += [
                nn.Conv2d(width, channels, kernel_size=3, stride=stride, padding=1),
                nn.GroupNorm(math.gcd(GROUPS, channels), channels),
                nn.SiLU(),
            ]
            width = channels
        grid = config.output == "grid"
        super().__init__(sides[0] * sides[1] if grid else 1, dim)
        self._grid = grid
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(width if grid else 2 * width, dim)

        # Pixels have a range of their own; depth has that of its dataset.
        self.standardize = Standardize(1) if stream.kind == "depth" else None

    def fit(self, statistics: Statistics) -> None:
        """Take the mean and spread of distances; of pixels nothing."""
        if self.standardize is not None:
            self.standardize.fit(statistics.mean, statistics.std)

    def forward(
        self, stream: UInt8[Tensor, "B T_obs H W 3"] | Float[Tensor, "B T_obs H W 1"]
    ) -> Float[Tensor, "B T_obs N D"]:
        values = stream.flatten(0, 1)
        scaled = values.float() / 127.5 - 1 if self.standardize is None else self.standardize(values)
        pixels = scaled.permute(0, 3, 1, 2)
        maps = self.layers(pixels)
        if self._grid:
            return self.project(maps.flatten(2).mT).unflatten(0, stream.shape[:2])
        keypoints = spatial_softmax(maps).flatten(1)
        return self.project(keypoints).unflatten(0, stream.shape[:2])[:, :, None]


def spatial_softmax(maps: Float[Tensor, "n K height width"]) -> Float[Tensor, "n K 2"]:
    """Return where each map responds: the mean position (x, y) under its softmax, in [-1, 1]."""
    height, width = maps.shape[-2:]
    weights = maps.flatten(2).float().softmax(dim=-1).unflatten(2, (height, width))
    x, y = (torch.linspace(-1, 1, size, device=maps.device) for size in (width, height))
    return torch.stack([(weights.sum(dim=2) * x).sum(dim=-1), (weights.sum(dim=3) * y).sum(dim=-1)], dim=-1)
