"""The ResNet trunk: images to 32 keypoints, and those to one vector.

    ImageNet's mean and spread ─ ResNet ─ 1 x 1 convolution ─ spatial softmax ─> 32 (x, y) ─ linear ─> D

The visual encoder of Diffusion Policy (arXiv 2303.04137). With `per_view_dim = 64`, three cameras and a state
of 16 the raw condition is 3 * 64 + 16 = 208. `blocks = attnres` is the full-AttnRes one in the same shell.

B batch, T_obs obs_horizon, D width.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from vla.base.errors import ConfigError
from vla.base.strict import Depth, Positive, Width
from vla.cache.metadata import Statistics
from vla.cache.stream import Kind, Stream
from vla.policy.nn.attnres2d import AttnResResNetLikeBackbone2D
from vla.policy.nn.resnet import ResNet
from vla.policy.nn.resnet_weights import load_weights
from vla.policy.trunks.conv import spatial_softmax
from vla.policy.trunks.trunk import Trunk, TrunkConfig

# Widths are multiples of 8: torch 2.13 on a CPU (oneDNN) writes beyond its memory in the backward pass of a
# 1 x 1 convolution of stride 2 on 4 channels that lie last.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, in [0, 1]: torchvision's weights expect them."""


class ResNetConfig(TrunkConfig):
    """A ResNet with a spatial softmax, from scratch or from a file of weights."""

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    type: Literal["resnet"] = "resnet"
    layers: Literal[18, 34] = 18
    """Of the ResNet; the other blocks have as many units a stage."""
    blocks: Literal["basic", "attnres", "plain"] = "basic"
    """The ResNet's own, or those of `AttnResImageBlock2D`, joined by Attention Residuals or by plain sums."""
    width: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = 64
    """Channels of the first stage, a multiple of 8; each of the three further ones has twice as many."""
    keypoints: Width = 32
    """Maps of the spatial softmax; each gives a position, two numbers."""
    norm: Literal["group", "batch"] = "group"
    """Of basic blocks: group, or batch with the statistics of the file of weights, frozen."""
    weights: str = ""
    """File in torchvision's format to start from; empty starts from scratch. Of basic blocks alone."""
    lr_scale: Positive = 1.0
    """Of its learning rate, as a share of `train.lr`; 0.1 keeps weights from a file near where they were."""
    heads: Depth = 8
    """Most heads of the other blocks' attention."""
    attention: Annotated[int, Field(ge=0, le=4)] = 2
    """Last stages of the other blocks that mix positions by attention; those before convolve."""
    smallest_map: Width = 4
    """Strides that would leave fewer positions in height or width are 1; 1 takes all, as the paper does."""

    @model_validator(mode="after")
    def _weights_fit(self) -> "ResNetConfig":
        if self.weights and self.blocks != "basic":
            raise ValueError(
                f"weights are for basic blocks, and blocks = {self.blocks}; leave one of them out"
            )
        return self

    def without_start(self) -> "ResNetConfig":
        return self.model_copy(update={"weights": "", "lr_scale": 1.0})

    def build(self, stream: Stream, dim: int) -> "ResNetTrunk":
        return ResNetTrunk(stream, dim, self)


class ResNetTrunk(Trunk):
    """Find keypoints in an image and project their positions.

    Args:
        stream: of kind image.
        dim: D.
        config: which network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stream: Stream, dim: int, config: ResNetConfig) -> None:
        super().__init__(1, dim)
        height, width, _ = stream.shape
        size = (height, width)
        if config.blocks == "basic":
            self.network: nn.Module = ResNet(
                size, config.layers, config.width, config.norm, config.smallest_map
            )
        else:
            self.network = AttnResResNetLikeBackbone2D(
                size,
                config.layers,
                config.width,
                config.heads,
                config.attention,
                config.blocks,
                config.smallest_map,
            )
        self.keypoints = nn.Conv2d(config.width << 3, config.keypoints, kernel_size=1)
        self.project = nn.Linear(2 * config.keypoints, dim)
        self.config, self.lr_scale = config, config.lr_scale
        for name, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, 255 * torch.tensor(value), persistent=False)

    def fit(self, statistics: Statistics) -> None:
        """Start from the file of weights, if one is named; later the policy's own are loaded.

        Raises:
            ConfigError: the file is missing, cannot be read, or is of another network; or none is named, and
                the normalisation needs one.
        """
        if self.config.weights:
            assert isinstance(self.network, ResNet)  # the configuration sees to it
            load_weights(self.network, Path(self.config.weights))
        elif self.config.blocks == "basic" and self.config.norm == "batch":
            raise ConfigError(
                "a trunk 'resnet' of norm = batch takes its statistics from a file: name it in weights, or "
                "take norm = group"
            )

    def forward(self, stream: UInt8[Tensor, "B T_obs H W 3"]) -> Float[Tensor, "B T_obs N D"]:
        pixels = (stream.flatten(0, 1).float() - self.mean) / self.std
        maps = self.keypoints(self.network(pixels.permute(0, 3, 1, 2)))
        return self.project(spatial_softmax(maps).flatten(1)).unflatten(0, stream.shape[:2])[:, :, None]
