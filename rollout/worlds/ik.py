"""Inverse kinematics of one arm: damped least squares with a posture task in the nullspace.

The step is dq = J^T (J J^T + l^2 I)^-1 e + N k (posture - q), the damped pseudo-inverse of Nakamura
and Hanafusa (1986); N keeps the posture task from moving the hand. Started from the previous
solution it takes about five iterations for a control period.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vla.rollout.worlds.gl import mujoco

DAMPING = 0.02
POSTURE_GAIN = 0.1
TOLERANCE = 2e-4
"""Of the position [m]; ten times that of the orientation [rad]."""
MAX_ITERATIONS = 20
MAX_STEP = 0.3
"""Largest change of a joint in one iteration [rad]."""
LIMIT_MARGIN = 0.01
"""Kept from the joint limits [rad]."""


class Pose(NamedTuple):
    """Where a hand is."""

    position: Float[np.ndarray, "3"]
    """In the world [m]."""
    orientation: Float[np.ndarray, "4"]
    """Unit quaternion, w first."""


class ArmKinematics:
    """Forward and inverse kinematics of one arm, on data of its own: the simulation is not touched.

    Args:
        model: the MuJoCo model.
        joints: names of the arm's joints, each with one degree of freedom and limits.
        hand: name of the site that is to be moved.
        posture: joint angles [rad] to stay near where the hand leaves a choice.
    """

    def __init__(
        self, model: Any, joints: Sequence[str], hand: str, posture: Float[np.ndarray, "dof"]
    ) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        found = [model.joint(joint) for joint in joints]
        self._positions = [joint.qposadr[0] for joint in found]
        self._columns = [joint.dofadr[0] for joint in found]
        self._lowest, self._highest = np.transpose([joint.range for joint in found])
        self._hand = model.site(hand).id
        self._posture = posture
        self._jacobian = np.zeros((6, model.nv))

    def forward(self, joints: Float[np.ndarray, "dof"]) -> Pose:
        """Return the hand's pose at these joint angles [rad]."""
        self._data.qpos[self._positions] = joints
        mujoco.mj_kinematics(self._model, self._data)
        orientation = np.empty(4)
        mujoco.mju_mat2Quat(orientation, self._data.site_xmat[self._hand])
        return Pose(self._data.site_xpos[self._hand].copy(), orientation)

    def inverse(self, start: Float[np.ndarray, "dof"], target: Pose) -> Float[np.ndarray, "dof"]:
        """Return joint angles [rad] near `start` that bring the hand to `target`.

        Out of reach, the hand comes as near as the iterations allow; angles stay within their limits.
        """
        joints = np.array(start, dtype=np.float64)
        lowest, highest = self._lowest + LIMIT_MARGIN, self._highest - LIMIT_MARGIN
        for iteration in range(MAX_ITERATIONS):
            error = self._error(joints, target)
            distance = max(np.linalg.norm(error[:3]), 0.1 * np.linalg.norm(error[3:]))
            if iteration > 0 and distance < TOLERANCE:
                break
            jacobian = self._jacobian_here()
            damped = jacobian @ jacobian.T + DAMPING**2 * np.eye(6)
            posture = POSTURE_GAIN * (self._posture - joints)
            step = jacobian.T @ np.linalg.solve(damped, error - jacobian @ posture) + posture
            step *= MAX_STEP / max(MAX_STEP, np.abs(step).max())
            joints = np.clip(joints + step, lowest, highest)
        return joints

    def _error(self, joints: Float[np.ndarray, "dof"], target: Pose) -> Float[np.ndarray, "6"]:
        """Return the way to the target: translation [m], then rotation vector [rad], in the world."""
        here = self.forward(joints)
        inverse, turn, rotation = np.empty(4), np.empty(4), np.empty(3)
        mujoco.mju_negQuat(inverse, here.orientation)
        mujoco.mju_mulQuat(turn, target.orientation, inverse)
        mujoco.mju_quat2Vel(rotation, turn, 1.0)
        return np.concatenate([target.position - here.position, rotation])

    def _jacobian_here(self) -> Float[np.ndarray, "6 dof"]:
        # mj_jacSite needs what mj_comPos computes, besides the kinematics.
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._hand)
        return self._jacobian[:, self._columns]
