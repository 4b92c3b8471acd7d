"""Tasks with a scripted expert, by the name that `vla record --task` takes."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vla.base.errors import ConfigError, nearest
from vla.rollout.worlds.aloha import aloha_env as aloha
from vla.rollout.worlds.expert import Expert
from vla.rollout.worlds.sim_transfer import task
from vla.rollout.worlds.sim_transfer.scene import RENDER_QUALITY

if TYPE_CHECKING:
    from vla.rollout.worlds.aloha.aloha_env import AlohaEnv
    from vla.rollout.worlds.sim_transfer.env import SimTransferEnv

TIME_LIMIT = "max_episode_steps"
"""An argument of `gymnasium.make`, for rollouts: a demonstration has as many steps as its task says."""


@dataclass(frozen=True, kw_only=True)
class ExpertTask:
    """What the recorder knows of a task.

    Environment and expert are named as `module:class`, so that nothing is imported before it is used.
    """

    env_id: str
    env: str
    env_kwargs: Mapping[str, Any]
    """What makes this task of the environment's class."""
    expert: str
    instruction: str
    """The task in words."""
    robot_type: str
    control_hz: int
    num_steps: int
    """Of a demonstration."""
    state_names: tuple[str, ...]
    cameras: tuple[str, ...]
    """Those of an environment that was not told which."""
    render_quality: Mapping[str, int] = field(default_factory=dict)
    """Of the scene; empty where the scene is another package's."""

    def open_env(self, kwargs: Mapping[str, Any]) -> "SimTransferEnv | AlohaEnv":
        """Make the environment.

        Raises:
            ConfigError: it does not take these arguments.
            EnvironmentSetupError: its package is not installed, or this machine cannot render.
        """
        own = {key: value for key, value in kwargs.items() if key != TIME_LIMIT}
        make = _load(self.env)
        try:
            env: SimTransferEnv | AlohaEnv = make(**self.env_kwargs, **own)
        except TypeError as error:
            valid = [name for name in inspect.signature(make).parameters if name not in self.env_kwargs]
            raise ConfigError(
                f"env.kwargs do not fit {self.env_id}: {error}; valid names: {', '.join(valid)}"
            ) from error
        return env

    def make_expert(self, physics: Any, rng: np.random.Generator, noise: float) -> Expert:
        """Return an expert for the episode that `physics` has just been reset to."""
        expert: Expert = _load(self.expert)(physics, rng, noise)
        return expert


EXPERT_TASKS = {
    task.TASK_NAME: ExpertTask(
        env_id=task.ENV_ID,
        env="vla.rollout.worlds.sim_transfer.env:SimTransferEnv",
        env_kwargs={},
        expert="vla.rollout.worlds.sim_transfer.transfer_expert:TransferExpert",
        instruction=task.INSTRUCTION,
        robot_type="dual_panda",
        control_hz=task.CONTROL_HZ,
        num_steps=task.MAX_EPISODE_STEPS,
        state_names=task.STATE_NAMES,
        cameras=task.CAMERAS,
        render_quality=RENDER_QUALITY,
    ),
    "aloha_transfer_cube": ExpertTask(
        env_id="vla/AlohaTransferCube-v0",
        env="vla.rollout.worlds.aloha.aloha_env:AlohaEnv",
        env_kwargs={"task": "transfer_cube"},
        expert="vla.rollout.worlds.aloha.aloha_expert:AlohaTransferExpert",
        instruction="Pick up the cube with the right arm and transfer it to the left arm.",
        robot_type="aloha",
        control_hz=aloha.CONTROL_HZ,
        num_steps=aloha.MAX_EPISODE_STEPS,
        state_names=aloha.STATE_NAMES,
        cameras=aloha.DEFAULT_CAMERAS,
    ),
}


def find_task(name: str) -> ExpertTask:
    """Look a task up.

    Raises:
        ConfigError: no task of that name has an expert.
    """
    if name not in EXPERT_TASKS:
        raise ConfigError(f"no expert for task '{name}'; {nearest(name, list(EXPERT_TASKS))}")
    return EXPERT_TASKS[name]


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
