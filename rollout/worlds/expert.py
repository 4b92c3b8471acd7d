"""Tasks with an expert, by the name that `vla record --task` takes.

A task is defined where its environment is registered, in a world's `world.py` or in a plugin:

    class StackTask(ExpertTask):
        type: Literal["stack"] = "stack"
        env_id: str = "my_robots/Stack-v0"
        ...

        def environment(self) -> Callable[..., gymnasium.Env[Any, Any]]:
            from my_robots.stack import StackEnv  # here, so that nothing heavy is imported before it is used

            return StackEnv
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from jaxtyping import Float32

from vla.base.errors import ConfigError
from vla.base.family import Family
from vla.base.strict import StrictModel

TIME_LIMIT = "max_episode_steps"
"""An argument of `gymnasium.make`, for rollouts: a demonstration has as many steps as its task says."""


class Command(NamedTuple):
    """What the expert wants, and what the robot is told."""

    label: Float32[np.ndarray, "dim"]
    """The command worth imitating."""
    executed: Float32[np.ndarray, "dim"]
    """The same, disturbed."""


class Expert(ABC):
    """Demonstrates one episode."""

    @abstractmethod
    def act(self) -> Command:
        """Return the command for the present moment; called once a control step."""


class ExpertTask(StrictModel, ABC):
    """What the recorder knows of a task; subclasses give every field a value."""

    type: str
    """The name that `--task` takes."""
    env_id: str
    """Under which rollouts find the environment."""
    env_kwargs: dict[str, Any] = {}  # noqa: RUF012  pydantic copies it
    """What makes this task of the environment's class."""
    instruction: str
    """The task in words."""
    robot_type: str
    control_hz: int
    num_steps: int
    """Of a demonstration."""
    state_names: tuple[str, ...]
    """Of the numbers of a state."""
    action_names: tuple[str, ...] = ()
    """Of the numbers of an action; empty: those of a state."""

    @abstractmethod
    def environment(self) -> Callable[..., gymnasium.Env[Any, Any]]:
        """Import and return the environment's class; its keyword arguments are `env.kwargs`."""

    @abstractmethod
    def make_expert(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator, noise: float) -> Expert:
        """Return an expert for the episode that `env` has just been reset to.

        Args:
            env: what `environment` made.
            rng: draws the disturbances.
            noise: scale of all variation; 0 is none.
        """

    def is_solved(self, reward: float, info: Mapping[str, Any]) -> bool:
        """Tell from an episode's last step whether it is worth keeping."""
        return bool(info["is_success"])

    def render_quality(self) -> dict[str, int]:
        """Return the scene's settings of quality, which a recording notes; empty where others chose them."""
        return {}

    def open_env(self, kwargs: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
        """Make the environment.

        Raises:
            ConfigError: it does not take these arguments.
            EnvironmentSetupError: its package is not installed, or this machine cannot render.
        """
        own = {key: value for key, value in kwargs.items() if key != TIME_LIMIT}
        make = self.environment()
        try:
            return make(**self.env_kwargs, **own)
        except TypeError as error:
            valid = [name for name in inspect.signature(make).parameters if name not in self.env_kwargs]
            raise ConfigError(
                f"env.kwargs do not fit {self.env_id}: {error}; valid names: {', '.join(valid)}"
            ) from error


EXPERT_TASKS = Family("task with an expert", ExpertTask, default="sim_transfer")


def find_task(name: str) -> ExpertTask:
    """Look a task up.

    Raises:
        ConfigError: no task of that name has an expert.
    """
    return EXPERT_TASKS.member(name).model_validate({})  # members give every field a value
