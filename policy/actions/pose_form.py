"""What all forms share that are not the robot's own numbers: rotations, correspondence, and what rests.

B batch, T pred_horizon, T_obs obs_horizon, A action size, S state size, P and Q their sizes as learned, n
plain numbers and k rotations of an action.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vla.base.errors import ConfigError
from vla.base.horizons import Horizons
from vla.cache import ACTION, STATE, Statistics, Stream
from vla.cache.movement import movement
from vla.policy.actions.action_form import ActionForm, ActionsConfig, Index, Metadata
from vla.policy.actions.demonstrations import Demonstrations
from vla.policy.actions.layout import Layout, Pose
from vla.policy.actions.streamed import streamed_statistics
from vla.policy.mixture import MixtureMetadata


class DifferenceConfig(ActionsConfig):
    """Actions as differences from the state, in those numbers that correspond to one of it."""

    state: tuple[Index, ...] = ()
    """The number of the state that each plain number of the action corresponds to, in order, without those
    that are left `absolute` or in a rotation; empty is the same number, if both have equally many."""
    absolute: tuple[Index, ...] = ()
    """Numbers of the action that are left as they are, such as a gripper's; a rotation by its first."""


class PoseForm(ActionForm):
    """Actions and states with rotations, or as differences.

    Args:
        action: the stream.
        state: the stream; None where the policy sees none.
        config: says which numbers are what.
        horizons: of the policy.

    Attributes:
        differs: [n] bool, plain numbers that are differences: not of what rests, which is exact as it is.
        turns_differ: [k] bool, rotations that are.
        rests: [A] bool, numbers of the robot's action that never moved; of a rotation all or none.
        resting: [A], what they were.

    Raises:
        ConfigError: the numbers do not fit the streams.
    """

    _asked: Tensor
    differs: Tensor
    turns_differ: Tensor
    rests: Tensor
    resting: Tensor

    def __init__(
        self, action: Stream, state: Stream | None, config: ActionsConfig, horizons: Horizons
    ) -> None:
        super().__init__(action, state)
        self._what, self._now = f"policy.actions = {config.type}", horizons.obs_horizon - 1
        turned = [r for r in config.rotations if r.action is not None]
        seen = [r for r in config.rotations if r.state is not None] if state else []
        try:
            self._action = Layout(action.channels, [(r.form, r.action or 0) for r in turned])
        except ValueError as error:
            raise ConfigError(f"{self._what}: rotations of the action: {error}") from error
        try:
            known = [(r.state_form or r.form, r.state or 0) for r in seen]
            self._state = Layout(self.state_dim, known)
        except ValueError as error:
            raise ConfigError(f"{self._what}: rotations of the state: {error}") from error
        self.dim, self.state_dim = self._action.learned_dim, self._state.learned_dim
        self._turn_of_state = [seen.index(r) if r in seen else -1 for r in turned]
        self._plain_of_state = [0] * len(self._action.plain)
        differs, turns_differ = [False] * len(self._action.plain), [False] * len(turned)
        if isinstance(config, DifferenceConfig):
            if state is None:
                raise ConfigError(f"{self._what} needs the state, and policy.streams leaves it out; add it")
            differs, turns_differ = self._correspond(config, action, state)
        self.register_buffer("_asked", torch.tensor(differs, dtype=torch.bool), persistent=False)
        self.register_buffer("differs", self._asked.clone())
        self.register_buffer("turns_differ", torch.tensor(turns_differ, dtype=torch.bool))
        self.register_buffer("rests", torch.zeros(action.channels, dtype=torch.bool))
        self.register_buffer("resting", torch.zeros(action.channels))

    def _correspond(
        self, config: DifferenceConfig, action: Stream, state: Stream
    ) -> tuple[list[bool], list[bool]]:
        """Find the state's number of each plain one; return which numbers and rotations are differences."""
        starts = [span.start for span in self._action.spans]
        for number in config.absolute:
            if number not in self._action.plain and number not in starts:
                raise ConfigError(
                    f"{self._what}: absolute names number {number}, which is no plain one of the action's "
                    f"{action.channels} nor the first of a rotation; such are {self._action.plain + starts}"
                )
        turned = [start not in config.absolute for start in starts]
        for start, differs, there in zip(starts, turned, self._turn_of_state, strict=True):
            if differs and there < 0:
                raise ConfigError(
                    f"{self._what}: the rotation from number {start} on has none in the state; give its "
                    f"first number there (state = N), or leave it as it is (absolute = [{start}])"
                )
        wanted = [number for number in self._action.plain if number not in config.absolute]
        found: Sequence[int] = config.state
        if not found and wanted and action.channels != state.channels:
            raise ConfigError(
                f"{self._what}: the action has {action.channels} numbers and the state {state.channels}; say "
                f"which of the state belong to numbers {wanted}: policy.actions.state = [...], or leave some "
                "as they are: policy.actions.absolute = [...]"
            )
        found = found or wanted
        if len(found) != len(wanted) or not all(number in self._state.plain for number in found):
            raise ConfigError(
                f"{self._what}: state = {list(found)} must name a plain number of the state's "
                f"{self._state.plain} for each of the action's {wanted}"
            )
        places = dict(zip(wanted, found, strict=True))
        self._plain_of_state = [places.get(number, 0) for number in self._action.plain]
        return [number in places for number in self._action.plain], turned

    def fit(self, action: Statistics) -> None:
        still = torch.tensor(movement(action.mean, action.std).constant)
        rests = still.clone()
        for number, span in enumerate(self._action.spans):
            whole = bool(still[list(span)].all())
            rests[list(span)] = whole
            self.turns_differ[number] &= not whole
        self.rests.copy_(rests)
        self.resting.copy_(torch.tensor(action.mean))
        self.differs.copy_(self._asked & ~still[self._action.plain])

    def described(self, cache: Metadata, demonstrations: Demonstrations | None, quantiles: bool) -> Metadata:
        if isinstance(cache, MixtureMetadata) and cache.normalise == "each":
            raise ConfigError(
                f"train.normalise = each standardises the actions of each cache as the robots have them, "
                f"which {self._what} does not learn; leave one of them out"
            )
        if demonstrations is None:
            raise ConfigError(f"{self._what} needs the demonstrations, to compute its statistics; vla train")
        found = dict(cache.statistics)
        found[ACTION] = streamed_statistics(self.dim, lambda: self._actions(demonstrations), quantiles)
        if self._state.spans:
            found[STATE] = streamed_statistics(
                self.state_dim, lambda: self._states(demonstrations), quantiles
            )
        return replace(cache, statistics=found)

    def _actions(self, demonstrations: Demonstrations) -> Iterator[Tensor]:
        for batch in demonstrations.blocks():
            yield self.encode(batch.action, batch.observation.get(STATE))[~batch.action_is_pad]

    def _states(self, demonstrations: Demonstrations) -> Iterator[Tensor]:
        for batch in demonstrations.blocks():
            yield self.encode_state(batch.observation[STATE][:, -1])

    def encode(
        self, action: Float[Tensor, "B T A"], state: Float[Tensor, "B T_obs S"] | None
    ) -> Float[Tensor, "B T P"]:
        return Layout.to_learned(self.differences(self._action.take_apart(action), state))

    def decode(
        self, learned: Float[Tensor, "B T P"], state: Float[Tensor, "B T_obs S"] | None
    ) -> Float[Tensor, "B T A"]:
        """Return the robot's chunk, the inverse of `encode`; what never moved is exactly what it was."""
        pose = self.restored(self._action.from_learned(learned), state)
        return torch.where(self.rests, self.resting, self._action.put_together(pose))

    @abstractmethod
    def differences(self, pose: Pose, state: Float[Tensor, "B T_obs S"] | None) -> Pose:
        """Return a chunk [B, T] as it is learned."""

    @abstractmethod
    def restored(self, learned: Pose, state: Float[Tensor, "B T_obs S"] | None) -> Pose:
        """Return the robot's chunk [B, T]."""

    def base_of_state(self, state: Float[Tensor, "*batch S"]) -> Pose:
        """Return what actions at the instant of a state are differences from; nothing where they are none."""
        seen = self._state.take_apart(state)
        still = torch.eye(3, dtype=state.dtype, device=state.device).expand(*state.shape[:-1], 1, 3, 3)
        turns = torch.cat([seen.turns, still], dim=-3)[..., self._turn_of_state, :, :]
        return self.base(Pose(state[..., self._plain_of_state], turns))

    def base(self, pose: Pose) -> Pose:
        """Return what of a pose others are differences from."""
        still = torch.eye(3, dtype=pose.turns.dtype, device=pose.turns.device)
        turns = torch.where(self.turns_differ[:, None, None], pose.turns, still)
        return Pose(torch.where(self.differs, pose.plain, torch.zeros_like(pose.plain)), turns)

    def encode_state(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch Q"]:
        return Layout.to_learned(self._state.take_apart(state)) if self._state.spans else state

    def decode_state(self, learned: Float[Tensor, "*batch Q"]) -> Float[Tensor, "*batch S"]:
        if not self._state.spans:
            return learned
        return self._state.put_together(self._state.from_learned(learned))

    def to_blend(self, action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch _P"]:
        return Layout.to_learned(self._action.take_apart(action))

    def from_blend(self, mean: Float[Tensor, "*batch _P"]) -> Float[Tensor, "*batch A"]:
        blended = self._action.put_together(self._action.from_learned(mean))
        return torch.where(self.rests, self.resting, blended)

    def spread(self, std: Float[Tensor, "P"]) -> Float[Tensor, "A"]:
        """Return standard deviations of plain numbers; for those of rotations 1."""
        spread = torch.ones(self._action.dim, dtype=std.dtype, device=std.device)
        spread[self._action.plain] = std[: len(self._action.plain)]
        return spread


def minus(pose: Pose, base: Pose) -> Pose:
    """Return the way from a base to a pose: of rotations R_base^T R, in the base's own axes."""
    return Pose(pose.plain - base.plain, base.turns.mT @ pose.turns)


def plus(base: Pose, way: Pose) -> Pose:
    """Return where a way leads."""
    return Pose(base.plain + way.plain, base.turns @ way.turns)
