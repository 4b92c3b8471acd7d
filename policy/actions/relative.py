"""Relative actions: every action of a chunk as the way from where the robot is now.

    plain numbers    a_k - s_0            s_0 the state at the chunk's current instant
    rotations        R(s_0)^T R(a_k)      in the axes of the hand as it is turned now

A chunk that starts where the robot is needs no memory of where demonstrations were. UMI (arXiv 2402.10329)
has relative trajectories too; its positions are in the hand's axes as well, here they are in the robot's.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from vla.base.horizons import Horizons
from vla.cache import Stream
from vla.policy.actions.layout import Pose
from vla.policy.actions.pose_form import DifferenceConfig, PoseForm, minus, plus


class RelativeConfig(DifferenceConfig):
    """Every action minus the state at the chunk's current instant."""

    type: Literal["relative"] = "relative"

    def build(self, action: Stream, state: Stream | None, horizons: Horizons) -> "RelativeForm":
        return RelativeForm(action, state, self, horizons)


class RelativeForm(PoseForm):
    """Actions as ways from the current state."""

    def differences(self, pose: Pose, state: Float[Tensor, "B T_obs S"] | None) -> Pose:
        assert state is not None  # the constructor sees to it
        return minus(pose, self.base_of_state(state[:, -1:]))

    def restored(self, learned: Pose, state: Float[Tensor, "B T_obs S"] | None) -> Pose:
        assert state is not None
        return plus(self.base_of_state(state[:, -1:]), learned)
