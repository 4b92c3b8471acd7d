"""The world `instructions`: names and sizes of its task, its environment, its expert. Imports no MuJoCo.

Every scene has the same four objects and two pads, anywhere on the table. What is to be done is said in words
and nowhere else: a policy that does not listen is right in one of eight episodes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import numpy as np

from vla.rollout.worlds.expert import Expert, ExpertTask

ENV_ID = "vla/Instructions-v0"
CAMERA = "top"
CONTROL_HZ = 10
"""Actions a second."""
MAX_EPISODE_STEPS = 48
DEMONSTRATION_STEPS = 30
"""The expert needs 16 in the median, 32 at most in 60 episodes."""
STATE_NAMES = ("x.pos", "y.pos", "grip.pos")
"""Of a state or an action: where the hand is, or shall be [m], and whether it holds, 0 or 1."""

gymnasium.register(
    id=ENV_ID,
    # A string: MuJoCo is imported when the first environment is made.
    entry_point="vla.rollout.worlds.instructions.env:InstructionsEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
)


class InstructionsTask(ExpertTask):
    """Take an object to a pad: which ones, the instruction says."""

    type: Literal["instructions"] = "instructions"
    env_id: str = ENV_ID
    instruction: str = "Take an object to a pad."
    """Each episode has its own, in `info["task"]`; this is what the task is about."""
    robot_type: str = "magnet"
    control_hz: int = CONTROL_HZ
    num_steps: int = DEMONSTRATION_STEPS
    state_names: tuple[str, ...] = STATE_NAMES

    def environment(self) -> Callable[..., gymnasium.Env[Any, Any]]:
        """Return `InstructionsEnv`."""
        from vla.rollout.worlds.instructions.env import InstructionsEnv

        return InstructionsEnv

    def make_expert(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator, noise: float) -> Expert:
        """Return the scripted expert."""
        from vla.rollout.worlds.instructions.env import InstructionsEnv
        from vla.rollout.worlds.instructions.instructions_expert import InstructionsExpert

        assert isinstance(env, InstructionsEnv)
        return InstructionsExpert(env, rng, noise)

    def is_solved(self, reward: float, info: Mapping[str, Any]) -> bool:
        """Tell whether the object lies on the pad at the end."""
        return bool(info["is_success"]) and reward == 1
