"""ALOHA's simulated tasks with any of their cameras: `vla/AlohaTransferCube-v0`, `vla/AlohaInsertion-v0`.

    observation  {"pixels": {camera: uint8 [h, w, 3]}, "agent_pos": float32 [14]}
    action       float32 [14]  for the next 20 ms: left 6 joints [rad], gripper [0 closed, 1 open], then right
    reward       the stage of this moment, 0 to 4
    terminated   at stage 4, which is success; truncated after 300 steps
    info         is_success, render_s

Physics, start positions by seed, reward and success are those of the package `gym-aloha`, which is made
from the simulation of ACT (Zhao et al., 2023, arXiv 2304.13705), so results stand beside published ones.
Two things differ. An observation of `gym-aloha` is the view from above alone, while it renders three views
a step; here it is the cameras that were asked for. And `gym-aloha` declares actions within [-1, 1], though
arms start at 1.16 rad; here the action space is the actuators' own.

`gym-aloha` wants another MuJoCo than the rest of vla is tested with, so it has an environment of its own:
make aloha.
"""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, UInt8

from vla.base.errors import ConfigError, EnvironmentSetupError, nearest
from vla.rollout.worlds.aloha.world import CAMERAS, CONTROL_HZ, DEFAULT_CAMERAS, JOINTS, STATE_NAMES
from vla.rollout.worlds.gl import require_rendering

FILMED = "angle"
MAX_IMAGE = (480, 640)
"""The offscreen buffer of the scene."""

Observation = dict[str, Any]


class AlohaEnv(gymnasium.Env[Observation, np.ndarray]):
    """A task of `gym-aloha`.

    Args:
        task: `transfer_cube` or `insertion`.
        render_height: of every image [pixel], up to 480.
        render_width: likewise, up to 640.
        cameras: which of `CAMERAS` an observation holds, in this order.
        shadows: False draws 3.3 times as fast on a CPU (19 ms instead of 64 ms a view of 256x256), but other
            pixels than `gym-aloha`'s.
        render_mode: `rgb_array` or None; `render` shows the camera `angle`.

    Attributes:
        render_observations: while this is False, `step` and `reset` return the images of the last rendered
            observation (all zeros if there was none).

    Raises:
        ConfigError: an argument is out of range.
        EnvironmentSetupError: `gym-aloha` is not installed, or this machine cannot render.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012  Gymnasium's name

    def __init__(
        self,
        *,
        task: str = "transfer_cube",
        render_height: int = 480,
        render_width: int = 640,
        cameras: Sequence[str] = DEFAULT_CAMERAS,
        shadows: bool = True,
        render_mode: str | None = None,
    ) -> None:
        _check_arguments(render_height, render_width, cameras, render_mode)
        require_rendering()
        self._inner = _gym_aloha(task)
        self._task = self._inner._env.task
        # Its own renders three views of 640x480 in every step, whoever looks.
        self._task.get_observation = lambda physics: {
            "images": {"top": np.zeros(0, np.uint8)},
            "qpos": self._task.get_qpos(physics),
        }
        self.render_mode, self.render_observations = render_mode, True
        self._drawing: dict[str, Any] = {
            "height": render_height,
            "width": render_width,
            "render_flag_overrides": {"shadow": shadows},
        }
        shape = (render_height, render_width, 3)
        self._pixels = {camera: np.zeros(shape, np.uint8) for camera in cameras}
        self._render_s = 0.0
        self.action_space = _action_space(self.physics)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict(dict.fromkeys(cameras, spaces.Box(0, 255, shape, np.uint8))),
                "agent_pos": spaces.Box(-2 * np.pi, 2 * np.pi, (len(STATE_NAMES),), np.float32),
            }
        )

    @property
    def physics(self) -> Any:
        """The simulated world of dm_control, for what a robot cannot see."""
        return self._inner._env.physics

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; a seed puts the objects where `gym-aloha` puts them with it."""
        super().reset(seed=seed)
        raw, info = self._inner.reset(seed=seed)
        return self._observation(raw), {**info, "render_s": self._render_s}

    def step(self, action: Float[np.ndarray, "14"]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Command the arms for 20 ms."""
        raw, reward, terminated, truncated, info = self._inner.step(np.asarray(action, np.float64))
        observation = self._observation(raw)
        known = {"is_success": bool(info["is_success"]), "render_s": self._render_s}
        return observation, float(reward), bool(terminated), bool(truncated), known

    def render(self) -> UInt8[np.ndarray, "_h _w 3"] | None:
        """Return the view of the camera `angle`, or None without a render mode."""
        return None if self.render_mode is None else self._view(FILMED)

    def close(self) -> None:
        """Free the OpenGL context."""
        self.physics.free()

    def _observation(self, raw: Observation) -> Observation:
        self._render_s = 0.0
        if self.render_observations:
            started = time.perf_counter()
            self._pixels = {camera: self._view(camera) for camera in self._pixels}
            self._render_s = time.perf_counter() - started
        views = {camera: view.copy() for camera, view in self._pixels.items()}
        return {"pixels": views, "agent_pos": np.asarray(raw["agent_pos"], np.float32)}

    def _view(self, camera: str) -> UInt8[np.ndarray, "_h _w 3"]:
        return np.asarray(self.physics.render(camera_id=camera, **self._drawing))


def _gym_aloha(task: str) -> Any:
    tasks = ("transfer_cube", "insertion")
    if task not in tasks:
        raise ConfigError(f"ALOHA has no simulated task '{task}'; {nearest(task, tasks)}")
    try:
        from gym_aloha.env import AlohaEnv as GymAlohaEnv
    except ImportError as error:
        raise EnvironmentSetupError(
            f"ALOHA's tasks need the package gym-aloha ({error}); run make aloha, then .venv-aloha/bin/vla"
        ) from error
    return GymAlohaEnv(task=task, obs_type="pixels_agent_pos")


def _action_space(physics: Any) -> spaces.Box:
    """Return the range of the six joints' actuators; `gym-aloha` counts gripper openings from 0 to 1."""
    low, high = np.asarray(physics.model.actuator_ctrlrange, np.float32).T
    # Actuators of an arm: six joints, then two fingers that mirror each other.
    arms = [0, 8]
    lowest = np.concatenate([[*low[arm : arm + len(JOINTS)], 0.0] for arm in arms])
    highest = np.concatenate([[*high[arm : arm + len(JOINTS)], 1.0] for arm in arms])
    return spaces.Box(lowest.astype(np.float32), highest.astype(np.float32))


def _check_arguments(height: int, width: int, cameras: Sequence[str], render_mode: str | None) -> None:
    for name, value, most in (("render_height", height, MAX_IMAGE[0]), ("render_width", width, MAX_IMAGE[1])):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigError(f"{name} must be a whole number from 1 to {most}, got {value!r}")
    if isinstance(cameras, str) or not cameras or len(set(cameras)) < len(cameras):
        raise ConfigError(f"cameras must be different names out of {', '.join(CAMERAS)}, got {cameras!r}")
    for camera in cameras:
        if camera not in CAMERAS:
            raise ConfigError(f"ALOHA's scene has no camera {camera!r}; {nearest(str(camera), CAMERAS)}")
    if render_mode not in (None, "rgb_array"):
        raise ConfigError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
