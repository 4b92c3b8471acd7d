"""A scripted expert for `sim_transfer`.

Each arm follows timed waypoints: the right hand picks the box fingers down, lifts it and turns to
point at the left arm; the left hand comes from the other side, jaws across, so that the hands grip
opposite ends of the box and never meet.

It is made to be imitated. What it commands should follow from what can be seen:

- Both arms share one clock, and the clock waits for the hand that lags behind its path. So each
  event follows from the pose before it, and not from a time that a picture does not show.
- The grasp and the handover aim at where the box is, not at where it was at the start.
- Waypoints carry no random offsets: nobody could foresee them.

Variation comes from smooth disturbances, added to the command that is executed but not to the one
that is recorded (Laskey et al., 2017, arXiv 1703.09327): the demonstration strays, and the recorded
command leads back.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from vla.rollout.ik import ArmKinematics, Pose
from vla.rollout.motion import Waypoint, interpolate, orientation
from vla.rollout.physics import TransferPhysics
from vla.rollout.scene import BOX_HALF
from vla.rollout.task import CONTROL_HZ, NUM_JOINTS, SIDES

DISTURBANCE = 0.05
"""Standard deviation of the disturbance of each joint in free flight [rad], at noise 1.

It takes the hand 3.6 cm off its path in the median, 13 cm at most; 498 of 500 episodes succeed
(0.06: 246 of 250). Policies cloned from 50 episodes, on true positions instead of images, succeed in
68 % of theirs without disturbance, in 86 % with 0.03, in 92 % with 0.05."""
DISTURBANCE_HZ = (0.1, 0.8)
"""Frequencies that a disturbance is made of."""
NUM_WAVES = 3
SPEED_SPREAD = 0.05
"""Half-width of the uniform variation of an episode's speed, at noise 1."""

MEETING = np.array([0.50, 0.0, 0.30])
"""Where the box changes hands [m]."""
RIGHT_CLOSES, RIGHT_OPENS = 1.85, 5.3
LEFT_ENTERS, LEFT_CLOSES = 4.35, 4.95
"""Moments of the clock [s] at which a hand begins to close, to open, or to approach."""
SHORT = 0.004
"""How far grasp centres stop short of the box's centre at the handover [m]."""
AIM_GAIN = 0.3
"""Share of the way that an aim follows the box in one step."""
LAG = (0.015, 0.05)
"""Distance between hand and path [m] at which the clock begins to slow, and at which it stands still,
where freedom is 0; at freedom 1, `FREE_LAG` more."""
FREE_LAG = 0.09
FREE, NEAR, GRASP = 1.0, 0.4, 0.05
"""Freedom in flight, beside the other hand, and at the box; disturbances are scaled by it."""

FORWARD, LEFTWARD, UP = np.eye(3)
RIGHTWARD, DOWN = -LEFTWARD, -UP


class Command(NamedTuple):
    """What the expert wants, and what the arms are told."""

    label: Float32[np.ndarray, "16"]
    """The command worth imitating."""
    executed: Float32[np.ndarray, "16"]
    """The same, disturbed."""


class TransferExpert:
    """Demonstrates one episode.

    Args:
        physics: just reset.
        rng: draws the disturbances.
        noise: scale of all variation; 0 is none.
    """

    def __init__(self, physics: TransferPhysics, rng: np.random.Generator, noise: float = 1.0) -> None:
        self._physics = physics
        self._arms = [ArmKinematics(physics.model, side) for side in SIDES]
        self._joints = self._measured_joints()
        self._start = [arm.forward(q) for arm, q in zip(self._arms, self._joints, strict=True)]
        self._speed = 1 + noise * SPEED_SPREAD * rng.uniform(-1, 1)
        self._amplitude = noise * DISTURBANCE * np.sqrt(2 / NUM_WAVES)
        shape = (NUM_WAVES, len(SIDES), NUM_JOINTS)
        self._frequency, self._phase = rng.uniform(*DISTURBANCE_HZ, shape), rng.uniform(0, 2 * np.pi, shape)
        self._clock, self._steps = 0.0, 0
        self._pick, self._yaw = physics.box_position, physics.box_yaw
        self._meeting = MEETING.copy()
        self._reference: list[Waypoint] = self._targets()

    def act(self) -> Command:
        """Return the command for the present moment; call once a control step."""
        self._clock += self._rate() * self._speed / CONTROL_HZ
        self._steps += 1
        self._follow_box()
        self._reference = self._targets()
        rows, free = [], []
        for side, (arm, target) in enumerate(zip(self._arms, self._reference, strict=True)):
            self._joints[side] = arm.inverse(self._joints[side], target.pose)
            rows.append([*self._joints[side], target.opening])
            free.append(target.freedom)
        label = np.array(rows)
        executed = label.copy()
        executed[:, :NUM_JOINTS] += np.array(free)[:, None] * self._disturbance()
        return Command(label.ravel().astype(np.float32), executed.ravel().astype(np.float32))

    def _rate(self) -> float:
        """Return the clock's speed: 1 while both hands are on their paths, 0 while one is far off."""
        rates = []
        for hand, target in zip(self._physics.gripper_positions, self._reference, strict=True):
            near, far = np.array(LAG) + target.freedom * FREE_LAG
            distance = np.linalg.norm(hand - target.pose.position)
            rates.append((far - distance) / (far - near))
        return float(np.clip(min(rates), 0, 1))

    def _follow_box(self) -> None:
        """Aim at the box until a hand closes on it."""
        if self._clock < RIGHT_CLOSES:
            self._pick = self._pick + AIM_GAIN * (self._physics.box_position - self._pick)
            self._yaw += AIM_GAIN * _nearest_quarter(self._physics.box_yaw - self._yaw)
        elif LEFT_ENTERS <= self._clock < LEFT_CLOSES:
            self._meeting = self._meeting + AIM_GAIN * (self._physics.box_position - self._meeting)

    def _disturbance(self) -> Float[np.ndarray, "2 7"]:
        time = self._steps / CONTROL_HZ
        waves = np.sin(2 * np.pi * self._frequency * time + self._phase)
        return self._amplitude * waves.sum(axis=0)

    def _targets(self) -> list[Waypoint]:
        return [interpolate(path, self._clock) for path in (self._left_path(), self._right_path())]

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

    def _measured_joints(self) -> Float[np.ndarray, "2 7"]:
        arms = self._physics.state.astype(np.float64).reshape(len(SIDES), NUM_JOINTS + 1)
        return arms[:, :NUM_JOINTS].copy()


def _nearest_quarter(turn: float) -> float:
    """Return the smallest turn [rad] that makes a cube look the same."""
    quarter = np.pi / 2
    return float((turn + quarter / 2) % quarter - quarter / 2)
