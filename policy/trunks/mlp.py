"""The MLP trunk: every token, or the one vector, through a hidden layer or several.

B batch, T_obs obs_horizon, N tokens, D width.
"""

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from vla.base.strict import Depth, Width
from vla.cache.metadata import Statistics
from vla.cache.stream import Kind, Stream
from vla.policy.nn.mlp import mlp
from vla.policy.nn.normalize import Standardize
from vla.policy.trunks.trunk import Trunk, TrunkConfig


class MlpTrunkConfig(TrunkConfig):
    """A multilayer perceptron."""

    kinds: ClassVar[tuple[Kind, ...]] = ("tokens", "vector")
    type: Literal["mlp"] = "mlp"
    width: Width = 512
    """Of the hidden layers."""
    layers: Depth = 1
    """Hidden layers."""

    def build(self, stream: Stream, dim: int) -> "MlpTrunk":
        return MlpTrunk(stream, dim, self)


class MlpTrunk(Trunk):
    """Standardise every token, or the one vector, and map it.

    Args:
        stream: of kind tokens or vector.
        dim: D.
        config: width and layers.
    """

    def __init__(self, stream: Stream, dim: int, config: MlpTrunkConfig) -> None:
        is_vector = len(stream.shape) == 1
        super().__init__(1 if is_vector else stream.shape[0], dim)
        self._is_vector = is_vector
        self.standardize = Standardize(stream.channels)
        self.network = mlp(stream.channels, config.width, config.layers, dim)

    def fit(self, statistics: Statistics) -> None:
        self.standardize.fit(statistics.mean, statistics.std)

    def forward(self, stream: Tensor) -> Float[Tensor, "B T_obs N D"]:
        vectors = self.network(self.standardize(stream.float()))
        return vectors[..., None, :] if self._is_vector else vectors
