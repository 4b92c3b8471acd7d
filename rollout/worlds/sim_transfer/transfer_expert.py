"""A scripted expert for `sim_transfer`.

The right hand picks the box fingers down, lifts it and turns to point at the left arm; the left hand
comes from the other side, jaws across, so that the hands grip opposite ends of the box and never meet.
"""

import numpy as np
from jaxtyping import Float

from vla.rollout.worlds.ik import Pose
from vla.rollout.worlds.motion import Waypoint, orientation
from vla.rollout.worlds.sim_transfer.arm import kinematics
from vla.rollout.worlds.sim_transfer.physics import TransferPhysics
from vla.rollout.worlds.sim_transfer.scene import BOX_HALF
from vla.rollout.worlds.sim_transfer.world import CONTROL_HZ, NUM_JOINTS, SIDES
from vla.rollout.worlds.two_hands import FREE, GRASP, NEAR, TwoHandedExpert

MEETING = np.array([0.50, 0.0, 0.30])
"""Where the box changes hands [m]."""
RIGHT_CLOSES, RIGHT_OPENS = 1.85, 5.3
LEFT_ENTERS, LEFT_CLOSES = 4.35, 4.95
"""Moments of the clock [s] at which a hand begins to close, to open, or to approach."""
SHORT = 0.004
"""How far grasp centres stop short of the box's centre at the handover [m]."""
AIM_GAIN = 0.3
"""Share of the way that an aim follows the box in one step."""

FORWARD, LEFTWARD, UP = np.eye(3)
RIGHTWARD, DOWN = -LEFTWARD, -UP


class TransferExpert(TwoHandedExpert):
    """Demonstrates one episode.

    Args:
        physics: just reset.
        rng: draws the disturbances.
        noise: scale of all variation; 0 is none.
    """

    control_hz = CONTROL_HZ
    # It takes the hand 3.6 cm off its path in the median, 13 cm at most; 498 of 500 episodes succeed
    # (0.06: 246 of 250). Policies cloned from 50 episodes, on true positions instead of images, succeed in
    # 68 % of theirs without disturbance, in 86 % with 0.03, in 92 % with 0.05.
    disturbance = 0.05
    lag = (0.015, 0.05)
    free_lag = 0.09

    def __init__(self, physics: TransferPhysics, rng: np.random.Generator, noise: float = 1.0) -> None:
        self._physics = physics
        joints = physics.state.reshape(len(SIDES), NUM_JOINTS + 1)[:, :NUM_JOINTS]
        super().__init__([kinematics(physics.model, side) for side in SIDES], joints, rng, noise)
        self._pick, self._yaw = physics.box_position, physics.box_yaw
        self._meeting = MEETING.copy()

    def hands(self) -> Float[np.ndarray, "2 3"]:
        """Return the measured grasp centres of the hands [m]."""
        return self._physics.gripper_positions

    def aim(self, clock: float) -> None:
        """Aim at the box until a hand closes on it."""
        if clock < RIGHT_CLOSES:
            self._pick = self._pick + AIM_GAIN * (self._physics.box_position - self._pick)
            self._yaw += AIM_GAIN * _nearest_quarter(self._physics.box_yaw - self._yaw)
        elif LEFT_ENTERS <= clock < LEFT_CLOSES:
            self._meeting = self._meeting + AIM_GAIN * (self._physics.box_position - self._meeting)

    def paths(self) -> tuple[list[Waypoint], list[Waypoint]]:
        """Return the waypoints of the left and the right hand."""
        return self._left_path(), self._right_path()

    def _right_path(self) -> list[Waypoint]:
        x, y, _ = self._pick
        grasp = np.array([x, y, BOX_HALF - 0.004])  # fingertips stay 1 cm above the table
        down = orientation(DOWN, np.array([np.sin(self._yaw), -np.cos(self._yaw), 0]))
        across = orientation(LEFTWARD, DOWN)
        meet = MEETING - SHORT * LEFTWARD
        return [
            Waypoint(0.0, self._start[1], 1, 0.2),
            Waypoint(1.2, Pose(grasp + 0.11 * UP, down), 1, FREE),
            Waypoint(1.8, Pose(grasp, down), 1, GRASP),
            Waypoint(RIGHT_CLOSES, Pose(grasp, down), 1, GRASP),
            Waypoint(2.25, Pose(grasp, down), 0, GRASP),
            Waypoint(2.8, Pose(grasp + 0.12 * UP, down), 0, FREE),
            Waypoint(4.4, Pose(meet, across), 0, GRASP),
            Waypoint(RIGHT_OPENS, Pose(meet, across), 0, GRASP),
            Waypoint(5.7, Pose(meet, across), 1, GRASP),
            Waypoint(6.3, Pose(meet + 0.13 * RIGHTWARD, across), 1, 0.3),
            Waypoint(7.0, Pose(meet + 0.20 * RIGHTWARD - 0.04 * FORWARD, across), 1, 0.5),
        ]

    def _left_path(self) -> list[Waypoint]:
        across = orientation(RIGHTWARD, FORWARD)
        grasp = self._meeting - SHORT * RIGHTWARD
        return [
            Waypoint(0.0, self._start[0], 1, 0.2),
            Waypoint(1.0, self._start[0], 1, FREE),
            Waypoint(LEFT_ENTERS, Pose(MEETING + 0.16 * LEFTWARD, across), 1, NEAR),
            Waypoint(4.9, Pose(grasp, across), 1, GRASP),
            Waypoint(LEFT_CLOSES, Pose(grasp, across), 1, GRASP),
            Waypoint(5.35, Pose(grasp, across), 0, GRASP),
            Waypoint(5.7, Pose(grasp, across), 0, GRASP),
            Waypoint(6.3, Pose(grasp + 0.04 * LEFTWARD, across), 0, 0.3),
            Waypoint(7.0, Pose(grasp + 0.10 * LEFTWARD + 0.03 * UP, across), 0, 0.5),
        ]


def _nearest_quarter(turn: float) -> float:
    """Return the smallest turn [rad] that makes a cube look the same."""
    quarter = np.pi / 2
    return float((turn + quarter / 2) % quarter - quarter / 2)
