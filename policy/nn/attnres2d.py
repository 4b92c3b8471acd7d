"""A ResNet-like backbone whose residual units are joined by Attention Residuals (arXiv 2603.15031).

    stem      convolution 7 x 7, group normalisation, ReLU, pooling, as a ResNet has it
    4 stages  AttnResImageBlock2D: at each position, every sublayer reads a learned mix over depth of the
              stage's input and of all sublayers before it
    between   convolution 3 x 3 that halves the map; sources do not cross it, for their sizes differ

A position is a token here, so the mix is `policy/nn/residual.py`'s, and so is what holds of it: with zero
queries, as they start, the backbone is the one with plain residual sums. A sublayer is a `ConvMixer` or an
`Attention2D`, which mix positions, or a `SwiGLU`, which mixes channels.

n images, N positions, C channels, H heads.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from vla.policy.nn.layers import SwiGLU
from vla.policy.nn.residual import AttnResStack, PlainStack
from vla.policy.nn.resnet import DEPTHS, group_norm, map_size, strides

LONGEST_WAVE = 10_000.0


class ConvMixer(nn.Module):
    """The body of a ResNet's block on tokens: two 3 x 3 convolutions, no shortcut of its own.

    Args:
        channels: C.
        size: height and width of the map that the tokens are.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = group_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, tokens: Float[Tensor, "n N C"]) -> Float[Tensor, "n N C"]:
        return to_tokens(self.conv2(self.norm(self.conv1(to_map(tokens, self.size))).relu()))


class Attention2D(nn.Module):
    """Self-attention of all positions; queries and keys, not values, know where they are.

    Args:
        channels: C.
        size: height and width of the map that the tokens are.
        heads: most heads.
    """

    positions: Tensor

    def __init__(self, channels: int, size: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.num_heads = math.gcd(heads, channels)
        self.query_key = nn.Linear(channels, 2 * channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.register_buffer("positions", positions_2d(size, channels), persistent=False)

    def forward(self, tokens: Float[Tensor, "n N C"]) -> Float[Tensor, "n N C"]:
        parts = (*self.query_key(tokens + self.positions).chunk(2, dim=-1), self.value(tokens))
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return self.out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class AttnResImageBlock2D(nn.Module):
    """The residual units of one stage, on a feature map: position mixers and MLPs by turns.

    Args:
        channels: C.
        size: height and width of the map.
        depth: units, of two sublayers each.
        heads: of attention; 0 mixes positions by convolutions.
        residual: attnres; plain sums the same sublayers.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        depth: int,
        heads: int = 0,
        residual: Literal["attnres", "plain"] = "attnres",
    ) -> None:
        super().__init__()
        self.size = size
        sublayers: list[nn.Module] = []
        for _ in range(depth):
            mixer = Attention2D(channels, size, heads) if heads else ConvMixer(channels, size)
            sublayers += [mixer, SwiGLU(channels)]
        stack: Callable[..., nn.Module] = AttnResStack if residual == "attnres" else PlainStack
        self.stack = stack(sublayers, channels)

    def forward(self, maps: Float[Tensor, "n C h w"]) -> Float[Tensor, "n C h w"]:
        return to_map(self.stack(to_tokens(maps)), self.size)


class AttnResResNetLikeBackbone2D(nn.Module):
    """Stem and four stages of `AttnResImageBlock2D`, downsampled as a ResNet is.

    Args:
        size: height and width [pixel] of the images.
        layers: 18 or 34, for as many units a stage as that ResNet has.
        width: channels of the first stage; each further one has twice as many.
        heads: of attention.
        attention: stages, counted from the last, whose positions are mixed by attention.
        residual: attnres; plain sums the same sublayers.
        smallest_map: see `vla.policy.nn.resnet.strides`.

    Attributes:
        channels: C of the last stage.
    """

    def __init__(
        self,
        size: tuple[int, int],
        layers: Literal[18, 34] = 18,
        width: int = 64,
        heads: int = 8,
        attention: int = 2,
        residual: Literal["attnres", "plain"] = "attnres",
        smallest_map: int = 1,
    ) -> None:
        super().__init__()
        steps = strides(size, smallest_map)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, steps[0], padding=3, bias=False),
            group_norm(width),
            nn.ReLU(),
            nn.MaxPool2d(3, steps[1], padding=1),
        )
        self.downsample, self.stages = nn.ModuleList([nn.Identity()]), nn.ModuleList()
        for stage, depth in enumerate(DEPTHS[layers]):
            channels = width << stage
            if stage:
                step = steps[stage + 1]
                self.downsample.append(nn.Conv2d(channels // 2, channels, 3, step, padding=1, bias=False))
            here = map_size(size, steps[: stage + 2])
            by_attention = heads if stage >= len(DEPTHS[layers]) - attention else 0
            self.stages.append(AttnResImageBlock2D(channels, here, depth, by_attention, residual))
        self.channels = width << 3

    def forward(self, images: Float[Tensor, "n 3 _H _W"]) -> Float[Tensor, "n C h w"]:
        maps = self.stem(images)
        for downsample, stage in zip(self.downsample, self.stages, strict=True):
            maps = stage(downsample(maps))
        return maps


def to_tokens(maps: Float[Tensor, "n C h w"]) -> Float[Tensor, "n N C"]:
    """Turn a map into one token a position, in rows from the top left; a view of a channels-last map."""
    return maps.flatten(2).transpose(1, 2)


def to_map(tokens: Float[Tensor, "n N C"], size: tuple[int, int]) -> Float[Tensor, "n C h w"]:
    """Turn tokens back into the map of that size."""
    return tokens.transpose(1, 2).unflatten(2, size)


def positions_2d(size: tuple[int, int], channels: int) -> Float[Tensor, "N C"]:
    """Return sines and cosines of rows in the first half of the channels, and of columns in the second.

    As in Attention Is All You Need (arXiv 1706.03762, section 3.5), an axis each. Channels beyond a multiple
    of four are 0.
    """
    waves = LONGEST_WAVE ** -(torch.arange(channels // 4) / max(1, channels // 4))
    axes = [torch.arange(length)[:, None] * waves for length in size]
    rows, columns = (torch.cat([angle.sin(), angle.cos()], dim=-1) for angle in axes)
    grid = torch.cat([rows[:, None].expand(-1, size[1], -1), columns[None].expand(size[0], -1, -1)], dim=-1)
    return nn.functional.pad(grid.flatten(0, 1), (0, channels - grid.shape[-1]))
