"""A scripted expert for ALOHA's transfer-cube task.

The right hand picks the cube fingers down, lifts it and turns to point at the left arm; the left hand
comes level from the other side, rolled by a quarter turn, so that its fingers pass above and below
the cube where the right hand's are beside it. Then the right hand lets go.

The task counts as solved when the left finger touches the cube in the air. A demonstration goes on
until the left hand alone holds it.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from vla.rollout.worlds.aloha.world import CONTROL_HZ, JOINTS, SIDES
from vla.rollout.worlds.gl import mujoco
from vla.rollout.worlds.ik import ArmKinematics, Pose
from vla.rollout.worlds.motion import Waypoint
from vla.rollout.worlds.two_hands import FREE, GRASP, NEAR, TwoHandedExpert

MEETING = np.array([0.0, 0.5, 0.26])
"""Where the cube changes hands [m], half-way between the arms."""
READY = np.array([0.17, 0.5, 0.20])
"""Where the right hand comes to point down [m]."""
TURNING = np.array([0.13, 0.5, 0.22])
"""Where it begins to turn level with the cube [m].

Both lie straight before the arm. A hand that turns between down and level elsewhere passes the wrist's
singularity with its forearm rolled, and the roll flips by half a turn in 0.2 s: the cube is thrown away."""
RIGHT_CLOSES, RIGHT_OPENS = 1.65, 4.75
LEFT_ENTERS, LEFT_CLOSES = 3.6, 4.25
"""Moments of the clock [s] at which a hand begins to close, to open, or to approach."""
AIM_GAIN = 0.3
"""Share of the way that an aim follows the cube in one step."""
GRASP_HEIGHT = 0.010
"""Of the hand over the table when it picks the cube [m]; fingers reach 4 mm further."""
START_OPENING = 0.1
REST = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0])
"""Joint angles that arms start with [rad]."""

RIGHTWARD, AWAY, UP = np.eye(3)
"""From the left arm to the right one; from the camera `angle` to the table; up."""
LEFTWARD, DOWN = -RIGHTWARD, -UP


class AlohaTransferExpert(TwoHandedExpert):
    """Demonstrates one episode.

    Args:
        physics: of dm_control, just reset.
        rng: draws the disturbances.
        noise: scale of all variation; 0 is none.
    """

    control_hz = CONTROL_HZ
    disturbance = 0.03
    lag = (0.03, 0.08)
    free_lag = 0.09

    def __init__(self, physics: Any, rng: np.random.Generator, noise: float = 1.0) -> None:
        self._model, self._data = physics.model.ptr, physics.data.ptr
        self._sites = [self._model.site(_hand(side)).id for side in SIDES]
        arms = [_kinematics(self._model, side) for side in SIDES]
        super().__init__(arms, np.array([REST, REST]), rng, noise)
        self._pick, self._meeting = self._cube()[:2], MEETING.copy()

    def hands(self) -> Float[np.ndarray, "2 3"]:
        """Return the measured points between the fingertips [m]."""
        return np.array(self._data.site_xpos[self._sites])

    def aim(self, clock: float) -> None:
        """Aim at the cube until a hand closes on it."""
        if clock < RIGHT_CLOSES:
            self._pick = self._pick + AIM_GAIN * (self._cube()[:2] - self._pick)
        elif LEFT_ENTERS <= clock < LEFT_CLOSES:
            self._meeting = self._meeting + AIM_GAIN * (self._cube() - self._meeting)

    def paths(self) -> tuple[list[Waypoint], list[Waypoint]]:
        """Return the waypoints of the left and the right hand."""
        return self._left_path(), self._right_path()

    def _right_path(self) -> list[Waypoint]:
        grasp = np.array([*self._pick, GRASP_HEIGHT])
        down, level = _orientation(DOWN, -AWAY), _orientation(LEFTWARD, -AWAY)
        return [
            Waypoint(0.0, self._start[1], START_OPENING, 0.2),
            Waypoint(0.6, Pose(READY, down), 0.6, FREE),
            Waypoint(1.2, Pose(grasp + 0.08 * UP, down), 1, FREE),
            Waypoint(1.6, Pose(grasp, down), 1, GRASP),
            Waypoint(RIGHT_CLOSES, Pose(grasp, down), 1, GRASP),
            Waypoint(2.05, Pose(grasp, down), 0, GRASP),
            Waypoint(2.4, Pose(grasp + 0.08 * UP, down), 0, FREE),
            Waypoint(3.0, Pose(TURNING, down), 0, FREE),
            Waypoint(3.8, Pose(MEETING, level), 0, GRASP),
            Waypoint(RIGHT_OPENS, Pose(MEETING, level), 0, GRASP),
            Waypoint(5.15, Pose(MEETING, level), 1, GRASP),
            Waypoint(5.65, Pose(MEETING + 0.10 * RIGHTWARD, level), 1, 0.3),
        ]

    def _left_path(self) -> list[Waypoint]:
        rolled = _orientation(RIGHTWARD, UP)
        return [
            Waypoint(0.0, self._start[0], START_OPENING, 0.2),
            Waypoint(1.0, self._start[0], START_OPENING, FREE),
            Waypoint(LEFT_ENTERS, Pose(MEETING + 0.12 * LEFTWARD, rolled), 1, NEAR),
            Waypoint(4.2, Pose(self._meeting, rolled), 1, GRASP),
            Waypoint(LEFT_CLOSES, Pose(self._meeting, rolled), 1, GRASP),
            Waypoint(RIGHT_OPENS, Pose(self._meeting, rolled), 0, GRASP),
            Waypoint(5.15, Pose(self._meeting, rolled), 0, GRASP),
            Waypoint(5.65, Pose(self._meeting + 0.05 * LEFTWARD, rolled), 0, 0.3),
        ]

    def _cube(self) -> Float[np.ndarray, "3"]:
        return np.array(self._data.body("box").xpos)


def _kinematics(model: Any, side: str) -> ArmKinematics:
    return ArmKinematics(model, [f"vx300s_{side}/{joint}" for joint in JOINTS], _hand(side), posture=REST)


def _hand(side: str) -> str:
    """Return the site that lies between the fingertips, 4 mm behind their ends."""
    return f"cali_{side}_site1"


def _orientation(approach: Float[np.ndarray, "3"], jaws: Float[np.ndarray, "3"]) -> Float[np.ndarray, "4"]:
    """Return the quaternion of a ViperX hand: it points along its x axis and closes along its y axis."""
    axes = np.column_stack([approach, jaws, np.cross(approach, jaws)])
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, axes.ravel())
    return quaternion
