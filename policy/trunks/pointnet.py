"""The point trunk: a scan to one vector, whatever the order of its points (PointNet, arXiv 1612.00593).

B batch, T_obs obs_horizon, D width.
"""

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from vla.base.strict import Width
from vla.cache.metadata import Statistics
from vla.cache.stream import Kind, Stream
from vla.policy.nn.layers import RMSNorm
from vla.policy.nn.normalize import Standardize
from vla.policy.trunks.trunk import Trunk, TrunkConfig


class PointNetConfig(TrunkConfig):
    """One MLP for every point, and the maximum over points."""

    kinds: ClassVar[tuple[Kind, ...]] = ("points",)
    type: Literal["pointnet"] = "pointnet"
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (64, 128)
    """Of the MLP's layers."""

    def build(self, stream: Stream, dim: int) -> "PointNetTrunk":
        return PointNetTrunk(stream, dim, self)


class PointNetTrunk(Trunk):
    """Describe every point by itself, keep the largest of each number, project.

    Args:
        stream: of kind points, [points, channels].
        dim: D.
        config: widths.
    """

    def __init__(self, stream: Stream, dim: int, config: PointNetConfig) -> None:
        super().__init__(1, dim)
        self.standardize = Standardize(stream.channels)
        layers: list[nn.Module] = []
        width = stream.channels
        for wider in config.widths:
            layers += [nn.Linear(width, wider), RMSNorm(wider), nn.SiLU()]
            width = wider
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(width, dim)

    def fit(self, statistics: Statistics) -> None:
        self.standardize.fit(statistics.mean, statistics.std)

    def forward(self, stream: Float[Tensor, "B T_obs points channels"]) -> Float[Tensor, "B T_obs N D"]:
        described = self.layers(self.standardize(stream.float()))
        return self.project(described.amax(dim=-2))[..., None, :]
