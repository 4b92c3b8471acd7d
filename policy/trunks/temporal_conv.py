"""The series trunk: convolutions over the samples since the last frame, and their mean.

B batch, T_obs obs_horizon, D width.
"""

import math
from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from vla.base.strict import Width
from vla.cache.metadata import Statistics
from vla.cache.stream import Kind, Stream
from vla.policy.nn.normalize import Standardize
from vla.policy.trunks.trunk import Trunk, TrunkConfig

GROUPS = 8
KERNEL = 5


class TemporalConvConfig(TrunkConfig):
    """Convolutions over time."""

    kinds: ClassVar[tuple[Kind, ...]] = ("series",)
    type: Literal["temporal_conv"] = "temporal_conv"
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (32, 64)
    """Of the layers."""

    def build(self, stream: Stream, dim: int) -> "TemporalConvTrunk":
        return TemporalConvTrunk(stream, dim, self)


class TemporalConvTrunk(Trunk):
    """Filter a series, average over time, project.

    Args:
        stream: of kind series, [time, channels].
        dim: D.
        config: layers.
    """

    def __init__(self, stream: Stream, dim: int, config: TemporalConvConfig) -> None:
        super().__init__(1, dim)
        self.standardize = Standardize(stream.channels)
        layers: list[nn.Module] = []
        width = stream.channels
        for channels in config.channels:
            layers += [
                nn.Conv1d(width, channels, KERNEL, padding=KERNEL // 2),
                nn.GroupNorm(math.gcd(GROUPS, channels), channels),
                nn.SiLU(),
            ]
            width = channels
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(width, dim)

    def fit(self, statistics: Statistics) -> None:
        self.standardize.fit(statistics.mean, statistics.std)

    def forward(self, stream: Float[Tensor, "B T_obs time channels"]) -> Float[Tensor, "B T_obs N D"]:
        values = self.standardize(stream.float()).flatten(0, 1).transpose(1, 2)
        filtered = self.layers(values).mean(dim=-1)
        return self.project(filtered).unflatten(0, stream.shape[:2])[:, :, None]
