"""What a policy asks of a trunk, whatever stream it reads.

B batch, T_obs obs_horizon, N tokens, D width.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from vla.base.errors import ConfigError, nearest
from vla.base.family import Family
from vla.base.strict import StrictModel
from vla.cache.metadata import Statistics
from vla.cache.stream import Kind, Stream


class Trunk(nn.Module):
    """Turn one stream into tokens.

    Args:
        num_tokens: N.
        dim: D.
    """

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.num_tokens, self.dim = num_tokens, dim

    def fit(self, statistics: Statistics) -> None:
        """Take the stream's statistics, to standardise with; a trunk may do without."""

    @abstractmethod
    def forward(self, stream: Tensor) -> Float[Tensor, "B T_obs N D"]:
        """Turn the stream, [B, T_obs, *shape] of its own dtype, into tokens."""


class OneToken(Trunk):
    """A trunk made of any module that turns a stream in float32, [..., *shape], into vectors [..., D].

    Args:
        network: the module.
        dim: D.
    """

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__(1, dim)
        self.network = network

    def forward(self, stream: Tensor) -> Float[Tensor, "B T_obs 1 D"]:
        return self.network(stream.float())[..., None, :]


class TrunkConfig(StrictModel):
    """Which trunk, and its settings.

    Attributes:
        kinds: of the streams that it reads.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ()
    type: str

    def settled(self) -> "TrunkConfig":
        """Return the settings with what had to be looked up elsewhere, so that a saved policy is whole."""
        return self

    def without_start(self) -> "TrunkConfig":
        """Return the settings without what is of training alone, such as a file of weights to start from."""
        return self

    @abstractmethod
    def build(self, stream: Stream, dim: int) -> Trunk:
        """Build the trunk, untrained.

        Args:
            stream: what it reads, of one of `kinds`.
            dim: D.
        """


# A vision tower is an encoder's: the trunk made of one is in the room that knows both.
TRUNKS: Family[TrunkConfig] = Family(
    "trunk", TrunkConfig, "vla.policy.trunks", "vla.rollout.trunks", default="linear"
)

BY_KIND: dict[Kind, str] = {
    "image": "conv",
    "tokens": "attention_pool",
    "vector": "linear",
    "points": "pointnet",
    "series": "temporal_conv",
    "depth": "conv",
}
"""The trunk of a stream for which none is named."""


def trunk_for(stream: Stream, named: TrunkConfig | None) -> TrunkConfig:
    """Return the trunk that reads a stream.

    Args:
        stream: what it reads.
        named: by the configuration; None takes the one of the stream's kind.

    Raises:
        ConfigError: the one that is named reads streams of other kinds.
    """
    if named is None:
        one_token = stream.kind == "tokens" and stream.shape[0] == 1
        return TRUNKS.parse("linear" if one_token else BY_KIND[stream.kind])
    if stream.kind not in named.kinds:
        able = ", ".join(name for name, config in TRUNKS.members().items() if stream.kind in config.kinds)
        raise ConfigError(
            f"policy.trunks: trunk '{named.type}' reads {' and '.join(named.kinds)}, not stream "
            f"{stream.describe()}; for that there are: {able}"
        )
    return named


def build_trunks(
    streams: Sequence[Stream], named: Mapping[str, TrunkConfig], dim: int, *, share_images: bool
) -> tuple[nn.ModuleList, dict[str, int]]:
    """Build the trunk of each stream, untrained.

    Args:
        streams: that are read, in order.
        named: trunks of some of them; the others get the one of their kind.
        dim: D.
        share_images: one trunk for images of one shape and one trunk's settings.

    Returns:
        The trunks, and the place of each stream's among them.

    Raises:
        ConfigError: a trunk is named for a stream that is not there, or that it cannot read.
    """
    for name in named:
        if name not in (names := [stream.name for stream in streams]):
            raise ConfigError(
                f"policy.trunks names '{name}', which the policy does not see; {nearest(name, names)}"
            )
    # A list, not a dict: a stream may have a dot in its name, a module may not.
    trunks = nn.ModuleList()
    places: dict[str, int] = {}
    shared: dict[object, int] = {}
    for stream in streams:
        chosen = trunk_for(stream, named.get(stream.name))
        shares = share_images and stream.kind == "image"
        key = (chosen.model_dump_json(), stream.shape) if shares else stream.name
        if key not in shared:
            shared[key] = len(trunks)
            trunks.append(chosen.build(stream, dim))
        places[stream.name] = shared[key]
    return trunks, places
