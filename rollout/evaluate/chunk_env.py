"""An environment that is stepped by action chunks and answers with observation histories.

    action       float32 [num_action_steps, A]
    observation  {"pixels": {camera: uint8 [T_obs, H, W, 3]}, "agent_pos": float32 [T_obs, S]}
    reward       sum over the steps of the chunk
    info         max_reward and is_success of the episode so far; tells_success, whether the environment has
                 said anything of it; render_s, mean seconds an observation

Of the 8 observations of a chunk the policy sees the last 2, and rendering is most of the cost of a
step. Environments with a `render_observations` attribute are told not to render the others.
"""

from collections import deque
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float32

from vla.rollout.evaluate.video import VideoWriter

Observation = dict[str, Any]
SUCCESS_KEYS = ("is_success", "success")


class ChunkEnv(gymnasium.Wrapper[Observation, np.ndarray, Observation, np.ndarray]):
    """Step an environment by chunks; after the end of an episode it stands still until reset.

    Args:
        env: with the observations of `vla.rollout.worlds.observations`.
        obs_horizon: T_obs, observations in a history.
        num_action_steps: actions in a chunk.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], obs_horizon: int, num_action_steps: int) -> None:
        super().__init__(env)
        self._num_action_steps = num_action_steps
        self._history: deque[Observation] = deque(maxlen=obs_horizon)
        self._video: VideoWriter | None = None
        self._over = False
        self._last_info: dict[str, Any] = {}
        assert isinstance(env.observation_space, spaces.Dict)
        self.observation_space = _stacked(env.observation_space, obs_horizon)
        assert isinstance(env.action_space, spaces.Box)
        self.action_space = spaces.Box(
            np.repeat(env.action_space.low[None], num_action_steps, axis=0),
            np.repeat(env.action_space.high[None], num_action_steps, axis=0),
            dtype=env.action_space.dtype.type,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; its first observation fills the history.

        Args:
            seed: of the episode.
            options: `videos` maps seeds to mp4 files; the episode is recorded if its seed is there.
        """
        self._finish_video()
        self._set_rendering(True)
        observation, info = self.env.reset(seed=seed)
        self._history.extend([observation] * (self._history.maxlen or 1))
        self._over = False
        self._last_info = {
            "is_success": False,
            "tells_success": False,
            "max_reward": -np.inf,
            "render_s": float(info.get("render_s", 0.0)),
        }
        path = (options or {}).get("videos", {}).get(seed)
        if path:
            self._video = VideoWriter(Path(path), round(self.env.metadata.get("render_fps", 25)))
            self._film()
        return self._stack(), dict(self._last_info)

    def step(
        self, action: Float32[np.ndarray, "num_action_steps A"]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute a chunk, or as much of it as the episode has left."""
        total, terminated, truncated = 0.0, False, self._over
        first_seen = self._num_action_steps - (self._history.maxlen or 1)
        render_seconds = []
        for index, command in enumerate(action if not self._over else ()):
            self._set_rendering(index >= first_seen)
            observation, reward, terminated, truncated, info = self.env.step(command)
            self._history.append(observation)
            total += float(reward)
            self._last_info["max_reward"] = max(self._last_info["max_reward"], float(reward))
            if (success := _success(info)) is not None:
                self._last_info["is_success"] |= success
                self._last_info["tells_success"] = True
            render_seconds.append(float(info.get("render_s", 0.0)))
            self._film()
            if terminated or truncated:
                self._over = True
                self._finish_video()
                break
        rendered = [seconds for seconds in render_seconds if seconds > 0]
        self._last_info["render_s"] = float(np.mean(rendered)) if rendered else 0.0
        return self._stack(), total, terminated, truncated, dict(self._last_info)

    def close(self) -> None:
        """Finish a running video and close the environment."""
        self._finish_video()
        super().close()

    def _set_rendering(self, on: bool) -> None:
        if hasattr(self.env.unwrapped, "render_observations"):
            self.env.unwrapped.render_observations = on

    def _film(self) -> None:
        if self._video is not None:
            frame = self.env.render()
            assert isinstance(frame, np.ndarray)
            self._video.add(frame)

    def _finish_video(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None

    def _stack(self) -> Observation:
        latest = self._history[-1]
        return {
            "pixels": {c: np.stack([o["pixels"][c] for o in self._history]) for c in latest["pixels"]},
            "agent_pos": np.stack([o["agent_pos"] for o in self._history]),
        }


def _success(info: dict[str, Any]) -> bool | None:
    """Return whether a task is solved, where the environment says so: LeRobot's key, or Gymnasium's."""
    told = (info.get(key) for key in SUCCESS_KEYS)
    return next((bool(value) for value in told if value is not None), None)


def _stacked(space: spaces.Dict, horizon: int) -> spaces.Dict:
    """Give every array of a space a leading time axis."""
    pixels = space["pixels"]
    assert isinstance(pixels, spaces.Dict)
    images: dict[str, gymnasium.Space[Any]] = {
        name: _repeat(image, horizon) for name, image in pixels.spaces.items()
    }
    return spaces.Dict({"pixels": spaces.Dict(images), "agent_pos": _repeat(space["agent_pos"], horizon)})


def _repeat(space: gymnasium.Space[Any], horizon: int) -> spaces.Box:
    assert isinstance(space, spaces.Box)
    return spaces.Box(
        np.repeat(space.low[None], horizon, axis=0),
        np.repeat(space.high[None], horizon, axis=0),
        dtype=space.dtype.type,
    )
