"""Deltas: every action as the way from the one before it.

    after the current instant     a_k - a_k-1
    now, and before               a_k - s_k        the state of the same instant, which was observed
    rotations likewise            R(a_k-1)^T R(a_k)

What is executed is therefore added up from the current state. Errors add up too: of the k-th action from now
on they are those of k + 1 predictions.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vla.base.horizons import Horizons
from vla.cache import Stream
from vla.policy.actions.layout import Pose
from vla.policy.actions.pose_form import DifferenceConfig, PoseForm, minus, plus


class DeltasConfig(DifferenceConfig):
    """Every action minus the one before; the current one minus the state."""

    type: Literal["deltas"] = "deltas"

    def build(self, action: Stream, state: Stream | None, horizons: Horizons) -> "DeltasForm":
        return DeltasForm(action, state, self, horizons)


class DeltasForm(PoseForm):
    """Actions as ways from one to the next."""

    def differences(self, pose: Pose, state: Float[Tensor, "B T_obs S"] | None) -> Pose:
        assert state is not None  # the constructor sees to it
        before = self.base(Pose(pose.plain[:, self._now : -1], pose.turns[:, self._now : -1]))
        return minus(pose, _joined([self.base_of_state(state), before]))

    def restored(self, learned: Pose, state: Float[Tensor, "B T_obs S"] | None) -> Pose:
        assert state is not None
        observed = state.shape[1]
        poses = [plus(self.base_of_state(state), _at(learned, 0, observed))]
        last = _at(poses[0], observed - 1, observed)
        for instant in range(observed, learned.plain.shape[1]):
            last = plus(self.base(last), _at(learned, instant, instant + 1))
            poses.append(last)
        return _joined(poses)


def _at(pose: Pose, first: int, stop: int) -> Pose:
    """Return some instants of a chunk."""
    return Pose(pose.plain[:, first:stop], pose.turns[:, first:stop])


def _joined(poses: list[Pose]) -> Pose:
    """Put parts of a chunk one after the other."""
    return Pose(torch.cat([p.plain for p in poses], dim=1), torch.cat([p.turns for p in poses], dim=1))
