"""What the scripted experts here have in common: two hands on timed waypoints, made to be imitated.

What an expert commands should follow from what can be seen:

- Both arms share one clock, and the clock waits for the hand that lags behind its path. So each
  event follows from the pose before it, and not from a time that a picture does not show.
- The grasp and the handover aim at where the box is, not at where it was at the start.
- Waypoints carry no random offsets: nobody could foresee them.

Variation comes from smooth disturbances, added to the command that is executed but not to the one
that is recorded (Laskey et al., 2017, arXiv 1703.09327): the demonstration strays, and the recorded
command leads back.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from vla.rollout.worlds.expert import Command, Expert
from vla.rollout.worlds.ik import ArmKinematics
from vla.rollout.worlds.motion import Waypoint, interpolate

DISTURBANCE_HZ = (0.1, 0.8)
"""Frequencies that a disturbance is made of."""
NUM_WAVES = 3
SPEED_SPREAD = 0.05
"""Half-width of the uniform variation of an episode's speed, at noise 1."""
FREE, NEAR, GRASP = 1.0, 0.4, 0.05
"""Freedom in flight, beside the other hand, and at the box; disturbances are scaled by it."""


class TwoHandedExpert(Expert):
    """Demonstrates one episode with two arms.

    Args:
        arms: kinematics of the left and the right arm.
        joints: their measured positions at the start [rad].
        rng: draws the disturbances.
        noise: scale of all variation; 0 is none.
    """

    control_hz: ClassVar[int]
    disturbance: ClassVar[float]
    """Standard deviation of the disturbance of each joint in free flight [rad], at noise 1."""
    lag: ClassVar[tuple[float, float]]
    """Distance between hand and path [m] at which the clock begins to slow, and at which it stands
    still, where freedom is 0."""
    free_lag: ClassVar[float]
    """What is added to both at freedom 1 [m]."""

    def __init__(
        self,
        arms: Sequence[ArmKinematics],
        joints: Float[np.ndarray, "arms dof"],
        rng: np.random.Generator,
        noise: float,
    ) -> None:
        self._arms = arms
        self._joints = joints.astype(np.float64)
        self._start = [arm.forward(q) for arm, q in zip(arms, self._joints, strict=True)]
        self._speed = 1 + noise * SPEED_SPREAD * rng.uniform(-1, 1)
        self._amplitude = noise * self.disturbance * np.sqrt(2 / NUM_WAVES)
        shape = (NUM_WAVES, *joints.shape)
        self._frequency, self._phase = rng.uniform(*DISTURBANCE_HZ, shape), rng.uniform(0, 2 * np.pi, shape)
        self._clock, self._steps = 0.0, 0

    @abstractmethod
    def paths(self) -> tuple[list[Waypoint], list[Waypoint]]:
        """Return the waypoints of the left and the right hand, as they are aimed now."""

    @abstractmethod
    def aim(self, clock: float) -> None:
        """Look where things are at this moment of the clock [s], and aim the waypoints at them."""

    @abstractmethod
    def hands(self) -> Float[np.ndarray, "arms 3"]:
        """Return the measured positions of the hands [m]."""

    def act(self) -> Command:
        """Return the command for the present moment; call once a control step."""
        self._clock += self._rate() * self._speed / self.control_hz
        self._steps += 1
        self.aim(self._clock)
        rows, free = [], []
        for side, (arm, target) in enumerate(zip(self._arms, self._targets(), strict=True)):
            self._joints[side] = arm.inverse(self._joints[side], target.pose)
            rows.append([*self._joints[side], target.opening])
            free.append(target.freedom)
        label = np.array(rows)
        executed = label.copy()
        executed[:, :-1] += np.array(free)[:, None] * self._disturbance()
        return Command(label.ravel().astype(np.float32), executed.ravel().astype(np.float32))

    def _rate(self) -> float:
        """Return the clock's speed: 1 while both hands are on their paths, 0 while one is far off."""
        rates = []
        for hand, target in zip(self.hands(), self._targets(), strict=True):
            near, far = np.array(self.lag) + target.freedom * self.free_lag
            distance = np.linalg.norm(hand - target.pose.position)
            rates.append((far - distance) / (far - near))
        return float(np.clip(min(rates), 0, 1))

    def _disturbance(self) -> Float[np.ndarray, "arms dof"]:
        time = self._steps / self.control_hz
        waves = np.sin(2 * np.pi * self._frequency * time + self._phase)
        return self._amplitude * waves.sum(axis=0)

    def _targets(self) -> list[Waypoint]:
        return [interpolate(path, self._clock) for path in self.paths()]
