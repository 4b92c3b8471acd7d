"""The world `detour`: names and sizes of its task, its environment, its expert. Imports no MuJoCo.

A puck has to get to a disc on the far side of a post. Both ways round are right; the expert takes one of them
by chance, whatever the start. A policy that learns the mean of what it saw drives into the post.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import numpy as np

from vla.rollout.worlds.expert import Expert, ExpertTask

ENV_ID = "vla/Detour-v0"
INSTRUCTION = "Move to the green disc without touching the post."
CAMERA = "top"
CONTROL_HZ = 20
"""Actions a second."""
MAX_EPISODE_STEPS = 64
STATE_NAMES = ("x.pos", "y.pos")
"""The two numbers of a state or an action: where the puck is, or shall be [m]."""
LEFT_SHARE = 0.5
"""Of the demonstrations. With 0.7 the mean of both ways leans to the left far enough for regression to pass
there, in 72 of 100 episodes."""

gymnasium.register(
    id=ENV_ID,
    # A string: MuJoCo is imported when the first environment is made.
    entry_point="vla.rollout.worlds.detour.env:DetourEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
)


class DetourTask(ExpertTask):
    """Move to the green disc without touching the post."""

    type: Literal["detour"] = "detour"
    env_id: str = ENV_ID
    env_kwargs: dict[str, Any] = {"repeated": True}  # noqa: RUF012  pydantic copies it
    instruction: str = INSTRUCTION
    robot_type: str = "puck"
    control_hz: int = CONTROL_HZ
    num_steps: int = MAX_EPISODE_STEPS
    state_names: tuple[str, ...] = STATE_NAMES

    def environment(self) -> Callable[..., gymnasium.Env[Any, Any]]:
        """Return `DetourEnv`."""
        from vla.rollout.worlds.detour.env import DetourEnv

        return DetourEnv

    def make_expert(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator, noise: float) -> Expert:
        """Return the scripted expert."""
        from vla.rollout.worlds.detour.detour_expert import DetourExpert
        from vla.rollout.worlds.detour.env import DetourEnv

        assert isinstance(env, DetourEnv)
        return DetourExpert(env, rng, noise)

    def is_solved(self, reward: float, info: Mapping[str, Any]) -> bool:
        """Tell whether the puck is on the disc and never touched the post."""
        return bool(info["is_success"]) and reward == 1
