"""The scripted experts of the package metaworld, one a task."""

import warnings

import numpy as np

from vla.rollout.worlds.expert import Command, Expert
from vla.rollout.worlds.metaworld.metaworld_env import MetaWorldEnv

DISTURBANCE = 0.1
"""Standard deviation of what is added to a commanded movement, at noise 1 [cm]."""


class MetaWorldExpert(Expert):
    """Demonstrates one episode.

    What it commands follows from where things are, at every step anew, so it recovers from disturbances.

    Args:
        env: just reset.
        rng: draws the disturbances.
        noise: scale of the disturbances; 0 is none, which is how published demonstrations were made.
    """

    def __init__(self, env: MetaWorldEnv, rng: np.random.Generator, noise: float = 1.0) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self._env, self._rng, self._scale = env, rng, noise * DISTURBANCE
        self._policy = ENV_POLICY_MAP[f"{env.task}-v3"]()

    def act(self) -> Command:
        """Return the command for the present moment; call once a control step.

        It is clipped to what the environment executes: experts ask for up to 25 times as much, and a policy
        that learned from that would have everything else rounded away.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Constant.s. may be too high")
            wanted = self._policy.get_action(self._env.everything)
        label = np.clip(wanted, -1, 1).astype(np.float32)
        disturbance = self._scale * self._rng.standard_normal(3)
        executed = np.clip(label + np.array([*disturbance, 0.0]), -1, 1)
        return Command(label, executed.astype(np.float32))
