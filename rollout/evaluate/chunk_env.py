"""An environment that is stepped by action chunks and answers with observation histories.

    action       float32 [num_action_steps, A]
    observation  {stream: [T_obs, ...]}, the last observations, oldest first
    reward       sum over the steps of the chunk
    info         max_reward, is_success and mode of the episode so far; tells_success, whether the environment
                 has said anything of success; render_s, mean seconds an observation; task, the instruction of
                 the episode, and asked, what success is counted by, where the environment gives them

Of the 8 observations of a chunk the policy sees the last 2, and rendering is most of the cost of a
step. Environments with a `render_observations` attribute are told not to render the others.
"""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float32

from vla.base.family import load_plugins
from vla.base.horizons import Horizons
from vla.embed.transforms import resize_images
from vla.rollout.evaluate.video import VideoWriter
from vla.rollout.rollout_config import EnvConfig
from vla.rollout.worlds.make_env import make_env
from vla.rollout.worlds.observations import SUCCESS_KEYS, Observation, is_image


class ChunkEnv(gymnasium.Wrapper[Observation, np.ndarray, Observation, np.ndarray]):
    """Step an environment by chunks; after the end of an episode it stands still until reset.

    Args:
        env: with the observations of `vla.rollout.worlds.observations`.
        horizons: how long a history and a chunk are.
        image_sizes: (height, width) [pixel] that cameras are resized to, here and not where the policy is: in
            the environment's own process, and once a frame that is seen in several decisions.
    """

    def __init__(
        self,
        env: gymnasium.Env[Observation, np.ndarray],
        horizons: Horizons,
        image_sizes: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    ) -> None:
        super().__init__(env)
        self._horizons = horizons
        self._history: deque[Observation] = deque(maxlen=horizons.obs_horizon)
        self._video: VideoWriter | None = None
        self._over = False
        self._last_info: dict[str, Any] = {}
        assert isinstance(env.observation_space, spaces.Dict)
        known = env.observation_space
        self._image_sizes = {
            name: size for name, size in image_sizes.items() if is_image(known.spaces.get(name))
        }
        resized = {name: _image_space(size) for name, size in self._image_sizes.items()}
        self.observation_space = spaces.Dict(
            {name: _repeat(resized.get(name, part), horizons.obs_horizon) for name, part in known.items()}
        )
        self.action_space = _repeat(env.action_space, horizons.num_action_steps)

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
        seen = resize_images(observation, self._image_sizes)
        self._history.extend([seen] * self._horizons.obs_horizon)
        self._over = False
        self._last_info = {
            "is_success": False,
            "tells_success": False,
            "max_reward": -np.inf,
            "mode": "",
            "task": str(info.get("task", "")),
            "asked": str(info.get("asked", "")),
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
        render_seconds = []
        for index, command in enumerate(action if not self._over else ()):
            self._set_rendering(self._horizons.is_seen(index))
            observation, reward, terminated, truncated, info = self.env.step(command)
            self._history.append(observation)
            total += float(reward)
            self._last_info["max_reward"] = max(self._last_info["max_reward"], float(reward))
            if (success := _success(info)) is not None:
                self._last_info["is_success"] |= success
                self._last_info["tells_success"] = True
            self._last_info["mode"] = str(info.get("mode", ""))
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
        for index, seen in enumerate(self._history):  # those of the last decision have their size
            self._history[index] = resize_images(seen, self._image_sizes)
        return {name: np.stack([seen[name] for seen in self._history]) for name in self._history[-1]}


def make_chunk_env(
    config: EnvConfig,
    horizons: Horizons,
    plugins: tuple[str, ...] = (),
    image_sizes: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> ChunkEnv:
    """Make an environment that is stepped by chunks; called in the process that it will run in.

    Args:
        config: id, arguments and cameras.
        horizons: how long a history and a chunk are.
        plugins: modules to import first; see `vla.base.family`.
        image_sizes: (height, width) [pixel] that cameras are resized to; see `LivePolicy.image_sizes`.

    Raises:
        EnvironmentSetupError: it cannot be made; see `vla.rollout.worlds.make_env`.
    """
    load_plugins(plugins)
    return ChunkEnv(make_env(config), horizons, image_sizes)


def _success(info: dict[str, Any]) -> bool | None:
    """Return whether a task is solved, where the environment says so."""
    told = (info.get(key) for key in SUCCESS_KEYS)
    return next((bool(value) for value in told if value is not None), None)


def _image_space(size: tuple[int, int]) -> spaces.Box:
    return spaces.Box(0, 255, (*size, 3), np.uint8)


def _repeat(space: gymnasium.Space[Any], times: int) -> spaces.Box:
    """Give the arrays of a space a leading time axis."""
    assert isinstance(space, spaces.Box)
    return spaces.Box(
        np.repeat(space.low[None], times, axis=0),
        np.repeat(space.high[None], times, axis=0),
        dtype=space.dtype.type,
    )
