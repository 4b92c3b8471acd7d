"""Tiny environments with LeRobot's observations, importable by spawned processes.

`Count`: the state counts the steps; the red channel of every image counts them too. The reward is the mean of
the action. An episode ends after 20 steps, and is a success if its last action was positive.

`Sensors`: the same counts in a point stream [8, 4] and a series [5, 6], beside a camera and a state; and
further keys that are no streams.
"""

import os
import signal
from collections.abc import Callable
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from vla.rollout.worlds.expert import Command, Expert, ExpertTask

ENV_ID = "fake_env:vla-tests/Count-v0"
SENSORS_ID = "fake_env:vla-tests/Sensors-v0"
ENDLESS_ID = "fake_env:vla-tests/Endless-v0"
LENGTH = 20


class CountEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(
        self,
        render_mode: str | None = None,
        cameras: tuple[str, ...] = ("r_vis", "top", "front"),
        size: int = 32,
        state_dim: int = 16,
        action_dim: int = 16,
        trouble: str = "",
        success_key: str = "is_success",
        ends_after: int = 0,
        fps: int = 25,
    ) -> None:
        self.render_mode, self.size, self.cameras = render_mode, size, cameras
        self.render_observations, self.rendered = True, 0
        self.steps, self.state_dim = 0, state_dim
        self.success_key, self.ends_after = success_key, ends_after
        self.metadata = {**self.metadata, "render_fps": fps}
        self.trouble = trouble  # "raised" or "killed", in step 3
        image = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict(dict.fromkeys(cameras, image)),
                "agent_pos": spaces.Box(-np.inf, np.inf, (state_dim,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1, 1, (action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.offset = 0, (seed or 0) % 7
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.trouble == "killed" and self.steps == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "raised" and self.steps == 3:
            raise ValueError("the joint is stuck")
        told = {self.success_key: bool(action.mean() > 0)} if self.success_key else {}
        return self._observe(), float(action.mean()), self.steps == self.ends_after, False, told

    def render(self) -> np.ndarray:
        return np.full((self.size, self.size, 3), self.steps, np.uint8)

    def _observe(self) -> dict[str, Any]:
        self.rendered += self.render_observations
        shown = self.steps if self.render_observations else 255
        frame = np.full((self.size, self.size, 3), shown, np.uint8)
        return {
            "pixels": {camera: frame.copy() for camera in self.cameras},
            "agent_pos": np.full(self.state_dim, self.steps + self.offset, np.float32),
        }


class SensorsEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(
        self,
        render_mode: str | None = None,
        pixels: bool = True,
        agent_pos: bool = True,
        points: int = 8,
        trouble: str = "",
    ) -> None:
        self.render_mode, self.steps, self.points = render_mode, 0, points
        self.trouble = trouble  # "nan" or "raised", in step 2
        image = spaces.Box(0, 255, (16, 16, 3), np.uint8)
        seen: dict[str, gymnasium.Space[Any]] = {
            "lidar": spaces.Box(-np.inf, np.inf, (points, 4), np.float64),
            "imu": spaces.Box(-np.inf, np.inf, (5, 6), np.float32),
            "instruction": spaces.Text(20),
            "battery": spaces.Box(0, 1, (), np.float32),
        }
        seen |= {"pixels": spaces.Dict({"top": image})} if pixels else {}
        seen |= {"agent_pos": spaces.Box(-np.inf, np.inf, (3,), np.float64)} if agent_pos else {}
        self.observation_space = spaces.Dict(seen)
        self.action_space = spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.trouble == "raised" and self.steps == 2:
            raise ValueError("the joint is stuck")
        return self._observe(), float(action.mean()), False, False, {"is_success": self.steps >= 3}

    def render(self) -> np.ndarray:
        return np.full((16, 16, 3), self.steps, np.uint8)

    def _observe(self) -> dict[str, Any]:
        observation: dict[str, Any] = {
            "pixels": {"top": self.render()},
            "lidar": np.full((self.points, 4), self.steps / 10),
            "imu": np.full((5, 6), self.steps / 20, np.float32),
            "instruction": "count",
            "battery": np.array(1, np.float32),
            "agent_pos": np.full(3, self.steps, np.float64),
        }
        if self.trouble == "nan" and self.steps == 2:
            observation["lidar"][3, 1] = np.nan
        assert isinstance(self.observation_space, spaces.Dict)
        return {name: value for name, value in observation.items() if name in self.observation_space.spaces}


class ConstantExpert(Expert):
    def act(self) -> Command:
        return Command(np.ones(3, np.float32), np.ones(3, np.float32))


class CountSensorsTask(ExpertTask):
    """A task that a plugin brings; its expert always does the same."""

    type: Literal["count_sensors"] = "count_sensors"
    env_id: str = SENSORS_ID.split(":")[1]
    instruction: str = "count"
    robot_type: str = "counter"
    control_hz: int = 25
    num_steps: int = 4
    state_names: tuple[str, ...] = ("a", "b", "c")

    def environment(self) -> Callable[..., gymnasium.Env[Any, Any]]:
        return SensorsEnv

    def make_expert(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator, noise: float) -> Expert:
        return ConstantExpert()


gymnasium.register(ENDLESS_ID.split(":")[1], entry_point="fake_env:CountEnv")
gymnasium.register(ENV_ID.split(":")[1], entry_point="fake_env:CountEnv", max_episode_steps=LENGTH)
gymnasium.register(SENSORS_ID.split(":")[1], entry_point="fake_env:SensorsEnv", max_episode_steps=6)
