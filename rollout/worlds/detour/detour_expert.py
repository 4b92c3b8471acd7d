"""A scripted expert for `detour`: one way round the post, taken by chance.

What it commands follows from where things are and from the way it has taken, at every step anew: if a
disturbance takes the puck off its path, the recorded command leads back. The way is drawn before it moves, by
nothing that a camera sees.
"""

import numpy as np

from vla.rollout.worlds.detour.env import POST_RADIUS, PUCK_RADIUS, DetourEnv
from vla.rollout.worlds.detour.world import CONTROL_HZ, LEFT_SHARE
from vla.rollout.worlds.expert import Command, Expert

CLEARANCE = 0.055
"""Between puck and post where it passes [m]."""
AHEAD, NEAR = (-0.04, 0.05), 0.02
"""How far before and behind the post's axis the places beside it are, and when one counts as reached [m]."""
SPEED = 0.6
"""[m/s]"""
SLOWS_WITHIN = 0.08
"""Of the disc [m]."""
TURNS = 0.35
"""Share of the way to the wanted direction that it turns in a step."""
LEAD = 0.03
"""How far before the puck the command lies at full speed, for the puck follows it late [m]."""
DISTURBANCE, NUM_WAVES, DISTURBANCE_HZ = 0.007, 3, (0.3, 1.5)
"""Standard deviation [m] of what is added to an executed command, at noise 1, and its frequencies."""


class DetourExpert(Expert):
    """Demonstrates one episode.

    Args:
        env: just reset.
        rng: draws the way and the disturbances.
        noise: scale of the disturbances; 0 is none.

    Attributes:
        side: 1 goes left of the post, -1 right.
    """

    def __init__(self, env: DetourEnv, rng: np.random.Generator, noise: float = 1.0) -> None:
        self._env, self._steps = env, 0
        self.side = 1.0 if rng.random() < LEFT_SHARE else -1.0
        self._direction = np.array([0.0, 0.0])
        self._amplitude = noise * DISTURBANCE * np.sqrt(2 / NUM_WAVES)
        self._frequency = rng.uniform(*DISTURBANCE_HZ, (NUM_WAVES, 2))
        self._phase = rng.uniform(0, 2 * np.pi, (NUM_WAVES, 2))

    def act(self) -> Command:
        """Return the command for the present moment; call once a control step."""
        puck = self._env.puck
        way = self._aim(puck) - puck
        slow = min(1.0, float(np.linalg.norm(self._env.disc - puck)) / SLOWS_WITHIN)
        wanted = slow * way / max(float(np.linalg.norm(way)), 1e-6)
        self._direction += TURNS * (wanted - self._direction)
        label = puck + self._direction * (LEAD + SPEED / CONTROL_HZ)
        self._steps += 1
        waves = np.sin(2 * np.pi * self._frequency * self._steps / CONTROL_HZ + self._phase)
        executed = label + self._amplitude * waves.sum(axis=0)
        return Command(label.astype(np.float32), executed.astype(np.float32))

    def _aim(self, puck: np.ndarray) -> np.ndarray:
        """Return the places beside the post until they are reached, then the disc."""
        aside = self.side * (POST_RADIUS + PUCK_RADIUS + CLEARANCE)
        for ahead in AHEAD:
            beside = self._env.post + np.array([ahead, aside])
            if puck[0] < beside[0] - NEAR:
                return beside
        return self._env.disc
