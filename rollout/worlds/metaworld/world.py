"""Meta-World: names and sizes, an environment and an expert for each of its 50 tasks.

`vla/MetaWorld-reach-v3` and the others need the package `metaworld`; this file does not.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
from pydantic import create_model

from vla.rollout.worlds.expert import Expert, ExpertTask
from vla.rollout.worlds.metaworld.tasks import TASKS

CAMERAS = ("corner2", "corner", "corner3", "corner4", "topview", "behindGripper", "gripperPOV")
"""All that the scenes have."""
DEFAULT_CAMERAS = ("corner2",)
STATE_NAMES = tuple(f"{part}.{axis}" for part in ("hand", "right_finger", "left_finger") for axis in "xyz")
"""[m], as 3D Diffusion Policy observes them; where things are is for the camera to see."""
ACTION_NAMES = ("hand.dx", "hand.dy", "hand.dz", "gripper")
CONTROL_HZ = 80
MAX_EPISODE_STEPS = 200
"""3D Diffusion Policy's. The package itself allows 500."""
MIN_SOLVED_STEPS = 5
"""In how many steps of a demonstration the task must be solved, as 3D Diffusion Policy has it."""
PREFIX = "metaworld/"


def env_id(task: str) -> str:
    """Return the Gymnasium id of a task, such as `reach`."""
    return f"vla/MetaWorld-{task}-v3"


class MetaWorldTask(ExpertTask):
    """A task of Meta-World; `metaworld/reach` and the others are its subclasses."""

    robot_type: str = "sawyer"
    control_hz: int = CONTROL_HZ
    num_steps: int = MAX_EPISODE_STEPS
    state_names: tuple[str, ...] = STATE_NAMES
    action_names: tuple[str, ...] = ACTION_NAMES

    def environment(self) -> Callable[..., gymnasium.Env[Any, Any]]:
        """Return `MetaWorldEnv`."""
        from vla.rollout.worlds.metaworld.metaworld_env import MetaWorldEnv

        return MetaWorldEnv

    def make_expert(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator, noise: float) -> Expert:
        """Return the package's own expert."""
        from vla.rollout.worlds.metaworld.metaworld_env import MetaWorldEnv
        from vla.rollout.worlds.metaworld.metaworld_expert import MetaWorldExpert

        assert isinstance(env, MetaWorldEnv)
        return MetaWorldExpert(env, rng, noise)

    def is_solved(self, reward: float, info: Mapping[str, Any]) -> bool:
        """Tell whether the task was solved for `MIN_SOLVED_STEPS` steps."""
        return int(info["solved_steps"]) >= MIN_SOLVED_STEPS


def _define(task: str) -> type[MetaWorldTask]:
    """Register a task's environment and make its member of the family."""
    gymnasium.register(
        id=env_id(task),
        entry_point="vla.rollout.worlds.metaworld.metaworld_env:MetaWorldEnv",
        kwargs={"task": task},
        max_episode_steps=MAX_EPISODE_STEPS,
    )
    name = PREFIX + task
    fields: dict[str, Any] = {
        "type": (Literal[name], name),
        "env_id": (str, env_id(task)),
        "env_kwargs": (dict[str, Any], {"task": task}),
        "instruction": (str, TASKS[task].instruction),
    }
    return create_model(
        f"MetaWorld_{task.replace('-', '_')}",
        __base__=MetaWorldTask,
        __module__=__name__,
        __doc__=TASKS[task].instruction,
        **fields,
    )


MEMBERS = {task: _define(task) for task in TASKS}
"""Held here: a family finds its members among the subclasses that are alive."""
