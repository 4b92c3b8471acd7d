"""What a policy asks of the form of its actions, and the usual one: the robot's numbers as they are.

B batch, T pred_horizon, T_obs obs_horizon, A action size, S state size; P and Q their sizes as learned.
"""

from abc import abstractmethod
from typing import Annotated, TypeVar

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from vla.base.family import Family
from vla.base.horizons import Horizons
from vla.base.strict import StrictModel
from vla.cache import Statistics, Stream
from vla.policy.actions.demonstrations import Demonstrations
from vla.policy.actions.rotations import RotationForm
from vla.policy.mixture import AnyMetadata

Index = Annotated[int, Field(ge=0)]
Metadata = TypeVar("Metadata", bound=AnyMetadata)


class RotationConfig(StrictModel):
    """Numbers of the action, of the state, or of both, that hold one rotation."""

    form: RotationForm
    """quaternion_xyzw, quaternion_wxyz, rotation_vector, or euler_xyz (about fixed axes) [rad]."""
    action: Index | None = None
    """Its first number in the action."""
    state: Index | None = None
    """Its first number in the state."""
    state_form: RotationForm | None = None
    """Of the state, where it has another one."""

    @model_validator(mode="after")
    def _is_somewhere(self) -> "RotationConfig":
        if self.action is None and self.state is None:
            raise ValueError("a rotation needs its first number in the action or in the state")
        return self


class ActionForm(nn.Module):
    """Actions and state as the robot has them.

    Args:
        action: the stream.
        state: the stream; None where the policy sees none.

    Attributes:
        dim: P.
        state_dim: Q; 0 where the policy sees no state.
    """

    def __init__(self, action: Stream, state: Stream | None) -> None:
        super().__init__()
        self.dim, self.state_dim = action.channels, state.channels if state else 0

    def fit(self, action: Statistics) -> None:
        """Take the statistics of the robot's actions."""

    def described(self, cache: Metadata, demonstrations: Demonstrations | None, quantiles: bool) -> Metadata:
        """Return what a cache says, with the statistics of actions and state as they are learned.

        Args:
            cache: with the statistics of the robot's own.
            demonstrations: those that are trained on.
            quantiles: whether they are needed.

        Raises:
            ConfigError: they cannot be known.
        """
        return cache

    def encode(
        self, action: Float[Tensor, "B T A"], state: Float[Tensor, "B T_obs S"] | None
    ) -> Float[Tensor, "B T P"]:
        """Return a chunk as it is learned.

        Args:
            action: at the predicted instants.
            state: at the observed ones.
        """
        return action

    def decode(
        self, learned: Float[Tensor, "B T P"], state: Float[Tensor, "B T_obs S"] | None
    ) -> Float[Tensor, "B T A"]:
        """Return the robot's chunk, the inverse of `encode`."""
        return learned

    def encode_state(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch Q"]:
        """Return states as they are told to the network."""
        return state

    def decode_state(self, learned: Float[Tensor, "*batch Q"]) -> Float[Tensor, "*batch S"]:
        """Return the robot's states."""
        return learned

    def to_blend(self, action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch _P"]:
        """Return actions as numbers of which a weighted mean makes sense."""
        return action

    def from_blend(self, mean: Float[Tensor, "*batch _P"]) -> Float[Tensor, "*batch A"]:
        """Return the robot's actions of such a mean."""
        return mean

    def spread(self, std: Float[Tensor, "P"]) -> Float[Tensor, "A"]:
        """Return on which scale a difference of the robot's actions is small or large.

        Args:
            std: of actions as they are learned.
        """
        return std


class ActionsConfig(StrictModel):
    """What the numbers are that a policy learns of an action; the robot is sent its own in any case."""

    type: str
    rotations: tuple[RotationConfig, ...] = ()
    """Numbers of action and state that hold a rotation. The policy knows each by the six numbers of arXiv
    1812.07035: [{ form = "quaternion_xyzw", action = 3, state = 3 }]."""

    @abstractmethod
    def build(self, action: Stream, state: Stream | None, horizons: Horizons) -> ActionForm:
        """Build the form.

        Args:
            action: the stream.
            state: the stream; None where the policy sees none.
            horizons: of the policy.

        Raises:
            ConfigError: it does not fit the streams.
        """


ACTIONS: Family[ActionsConfig] = Family(
    "form of actions", ActionsConfig, "vla.policy.actions", default="absolute"
)
