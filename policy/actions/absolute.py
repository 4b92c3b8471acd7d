"""Absolute actions: the robot's numbers as they are, rotations among them by six numbers each."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from vla.base.horizons import Horizons
from vla.cache import Stream
from vla.policy.actions.action_form import ActionForm, ActionsConfig
from vla.policy.actions.layout import Pose
from vla.policy.actions.pose_form import PoseForm


class AbsoluteConfig(ActionsConfig):
    """The robot's own actions."""

    type: Literal["absolute"] = "absolute"

    def build(self, action: Stream, state: Stream | None, horizons: Horizons) -> ActionForm:
        if not self.rotations:
            return ActionForm(action, state)
        return AbsoluteForm(action, state, self, horizons)


class AbsoluteForm(PoseForm):
    """Actions as they are, but for their rotations."""

    def differences(self, pose: Pose, state: Float[Tensor, "B T_obs S"] | None) -> Pose:
        return pose

    def restored(self, learned: Pose, state: Float[Tensor, "B T_obs S"] | None) -> Pose:
        return learned
