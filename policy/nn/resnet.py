"""ResNet-18 and ResNet-34 (arXiv 1512.03385) for control: with group, or frozen batch normalisation.

Convolutions and blocks are those of the paper, and parameters are named as torchvision names them, `bn` being
`norm` here. Batches of robot learning are of few episodes and weights are averaged, which running statistics
suffer from; Diffusion Policy (arXiv 2303.04137) takes group normalisation for that reason.

n images, C channels of the last stage, h and w of its map.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

DEPTHS: dict[int, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Blocks of each stage, by the number of layers that the network is known for."""
CHANNELS_A_GROUP = 16

Norm = Callable[[int], nn.Module]


def group_norm(channels: int) -> nn.GroupNorm:
    """Build a group normalisation with groups of 16 channels, fewer where those do not divide them."""
    return nn.GroupNorm(channels // math.gcd(CHANNELS_A_GROUP, channels), channels)


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with the statistics and the affine map of a checkpoint; none of it is trained."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Float[Tensor, "n C h w"]) -> Float[Tensor, "n C h w"]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


NORMS: dict[Literal["group", "batch"], Norm] = {"group": group_norm, "batch": FrozenBatchNorm2d}


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: x -> relu(f(x) + x)."""

    def __init__(self, before: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.norm1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = norm(channels)
        self.downsample: nn.Module | None = None
        if stride > 1 or before != channels:
            shortcut = nn.Conv2d(before, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, norm(channels))

    def forward(self, x: Float[Tensor, "n _before _H _W"]) -> Float[Tensor, "n _C _h _w"]:
        past = x if self.downsample is None else self.downsample(x)
        return (self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())) + past).relu()


class ResNet(nn.Module):
    """Stem and four stages of `BasicBlock`, without the pooling and the classifier at the end.

    Args:
        size: height and width [pixel] of the images.
        layers: 18 or 34.
        width: channels of the first stage; each further one has twice as many.
        norm: group, or batch for weights from a file.
        smallest_map: see `strides`.

    Attributes:
        channels: C.
    """

    def __init__(
        self,
        size: tuple[int, int],
        layers: Literal[18, 34] = 18,
        width: int = 64,
        norm: Literal["group", "batch"] = "group",
        smallest_map: int = 1,
    ) -> None:
        super().__init__()
        stem, pool, *steps = strides(size, smallest_map)
        self.conv1 = nn.Conv2d(3, width, 7, stem, padding=3, bias=False)
        self.norm1 = NORMS[norm](width)
        self.pool = nn.MaxPool2d(3, pool, padding=1)
        before = width
        for stage, (depth, stride) in enumerate(zip(DEPTHS[layers], (1, *steps), strict=True)):
            channels = width << stage
            blocks = [BasicBlock(before, channels, stride, NORMS[norm])]
            blocks += [BasicBlock(channels, channels, 1, NORMS[norm]) for _ in range(depth - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            before = channels
        self.channels = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "n 3 _H _W"]) -> Float[Tensor, "n C h w"]:
        maps = self.pool(self.norm1(self.conv1(images)).relu())
        for stage in range(4):
            maps = self.get_submodule(f"layer{stage + 1}")(maps)
        return maps


def strides(size: tuple[int, int], smallest_map: int) -> list[int]:
    """Return the five strides of a ResNet: its stem's, its pooling's, and those of stages 2 to 4.

    Each halves the map, which ends at 1/32 of the image; one that would leave less than `smallest_map`
    positions in height or width does not. Keypoints need positions to tell apart: an image of 96 x 96 ends at
    3 x 3 otherwise.
    """
    found, shorter = [], min(size)
    for _ in range(5):
        found.append(2 if -(-shorter // 2) >= smallest_map else 1)
        shorter = -(-shorter // found[-1])
    return found


def map_size(size: tuple[int, int], steps: list[int]) -> tuple[int, int]:
    """Return height and width of a map after some of `strides`."""
    height, width = size
    for step in steps:
        height, width = -(-height // step), -(-width // step)
    return height, width
