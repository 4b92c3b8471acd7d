"""A scripted expert for `instructions`: to the object, hold, to the pad, let go, and stay.

What it commands follows from where things are, at every step anew: if a disturbance takes the hand off its
path, the recorded command leads back.
"""

import numpy as np

from vla.rollout.worlds.expert import Command, Expert
from vla.rollout.worlds.instructions.env import InstructionsEnv
from vla.rollout.worlds.instructions.world import CONTROL_HZ

SPEED = 0.45
"""[m/s]"""
NEAR = {"object": 0.012, "pad": 0.02}
"""When the hand is where it wants to be [m]."""
LEAD = 0.02
"""How far before the hand the command lies at full speed, for the hand follows it late [m]."""
DISTURBANCE, NUM_WAVES, DISTURBANCE_HZ = 0.008, 3, (0.2, 1.0)
"""Standard deviation [m] of what is added to an executed command, at noise 1, and its frequencies."""


class InstructionsExpert(Expert):
    """Demonstrates one episode.

    Args:
        env: just reset; it does what the instruction says.
        rng: draws the disturbances.
        noise: scale of the disturbances; 0 is none.
    """

    def __init__(self, env: InstructionsEnv, rng: np.random.Generator, noise: float = 1.0) -> None:
        self._env, self._steps, self._put_down = env, 0, False
        self._amplitude = noise * DISTURBANCE * np.sqrt(2 / NUM_WAVES)
        self._frequency = rng.uniform(*DISTURBANCE_HZ, (NUM_WAVES, 2))
        self._phase = rng.uniform(0, 2 * np.pi, (NUM_WAVES, 2))

    def act(self) -> Command:
        """Return the command for the present moment; call once a control step."""
        target, near, grip = self._aim()
        way = target - self._env.hand
        distance = float(np.linalg.norm(way))
        if self._put_down or distance < near:
            grip = not self._env.held and not self._put_down
            self._put_down |= bool(self._env.held)
        reach = min(distance, LEAD + SPEED / CONTROL_HZ)
        place = self._env.hand + way * (reach / max(distance, 1e-9))
        label = np.array([*place, grip], np.float32)
        self._steps += 1
        waves = np.sin(2 * np.pi * self._frequency * self._steps / CONTROL_HZ + self._phase)
        executed = label + np.array([*(self._amplitude * waves.sum(axis=0)), 0], np.float32)
        return Command(label, executed.astype(np.float32))

    def _aim(self) -> tuple[np.ndarray, float, bool]:
        """Return where to go [m], how near is near enough [m], and whether the magnet is on meanwhile."""
        task = self._env.told
        if self._put_down:
            return self._env.place(task.pad), NEAR["pad"], False
        if self._env.held:
            return self._env.place(task.pad), NEAR["pad"], True
        return self._env.place(task.object), NEAR["object"], False
