"""The linear trunk: standardise and project, each token by itself.

Standardising matters: frames of one scene differ little in a frozen feature space, next to the
feature's mean.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.cache.metadata import Statistics
from vla.cache.stream import Kind, Stream
from vla.policy.nn.normalize import Standardize
from vla.policy.trunks.trunk import Trunk, TrunkConfig


class LinearConfig(TrunkConfig):
    """A linear projection; it has no settings of its own."""

    kinds: ClassVar[tuple[Kind, ...]] = ("tokens", "vector")
    type: Literal["linear"] = "linear"

    def build(self, stream: Stream, dim: int) -> "LinearTrunk":
        return LinearTrunk(stream, dim)


class LinearTrunk(Trunk):
    """Project every token, or the one vector.

    Args:
        stream: of kind tokens or vector.
        dim: D.
    """

    def __init__(self, stream: Stream, dim: int) -> None:
        is_vector = len(stream.shape) == 1
        super().__init__(1 if is_vector else stream.shape[0], dim)
        self._is_vector = is_vector
        self.standardize = Standardize(stream.channels)
        self.project = nn.Linear(stream.channels, dim)

    def fit(self, statistics: Statistics) -> None:
        self.standardize.fit(statistics.mean, statistics.std)

    def forward(self, stream: Tensor) -> Float[Tensor, "B T_obs N D"]:
        values = self.standardize(stream.float())
        if not self._is_vector:
            return self.project(values)
        # A sensor's vector is measured in the robot's units, as the state is: bfloat16 has too few digits.
        with torch.autocast(stream.device.type, enabled=False):
            return self.project(values.unsqueeze(-2))
