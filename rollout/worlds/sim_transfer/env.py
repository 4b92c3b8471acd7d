"""The task `sim_transfer` as a Gymnasium environment, `vla/SimTransfer-v0`.

    observation  {"pixels": {camera: uint8 [h, w, 3]}, "agent_pos": float32 [16]}
    action       float32 [16]  commanded positions for the next 40 ms, ordered as `STATE_NAMES`
    reward       the stage of this moment, 0 to 4 (see `TransferPhysics.stage`)
    terminated   never: the sooner the box is handed over, the larger the sum of rewards
    truncated    after 200 steps, by Gymnasium's TimeLimit
    info         is_success (stage 4 was held for 10 steps; stays true), stage, max_stage, render_s

An episode is decided by the seed of its reset: the place of the box and the start pose of the arms.
"""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, UInt8

from vla.base.errors import ConfigError, nearest
from vla.rollout.worlds.cameras import CameraRig
from vla.rollout.worlds.sim_transfer.physics import ACTION_LIMITS, TransferPhysics
from vla.rollout.worlds.sim_transfer.world import CAMERAS, CONTROL_HZ, SHAPES, STATE_NAMES

HOLD_STEPS = 10
"""How long stage 4 must last to count: a box can touch the left fingers only in passing."""
MAX_IMAGE_SIDE = 4096

Observation = dict[str, Any]


class SimTransferEnv(gymnasium.Env[Observation, np.ndarray]):
    """Pick the red box with the right arm and hand it over to the left arm.

    Args:
        render_height: of every image [pixel].
        render_width: likewise.
        cameras: which of `r_vis`, `top`, `front` an observation holds, in this order.
        render_mode: `rgb_array` or None; `render` shows the camera `front`.
        shape: of what is handed over, `box` or `cylinder`.

    Attributes:
        render_observations: rendering takes nearly all the time of a step. While this is False, `step`
            and `reset` return the images of the last rendered observation, which are stale (all zeros
            if there was none); `observe` renders the present one.

    Raises:
        ConfigError: an argument is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012  Gymnasium's name

    def __init__(
        self,
        *,
        render_height: int = 480,
        render_width: int = 640,
        cameras: Sequence[str] = CAMERAS,
        render_mode: str | None = None,
        shape: str = "box",
    ) -> None:
        _check_arguments(render_height, render_width, cameras, render_mode)
        if shape not in SHAPES:
            raise ConfigError(f"sim_transfer has no shape {shape!r}; valid shapes: {', '.join(SHAPES)}")
        self.render_mode = render_mode
        self.render_observations = True
        self._height, self._width, self._cameras = render_height, render_width, tuple(cameras)
        self._physics = TransferPhysics(render_height, render_width, shape)
        self._rig: CameraRig | None = None
        image_shape = (render_height, render_width, 3)
        self._pixels = {camera: np.zeros(image_shape, np.uint8) for camera in self._cameras}
        self._render_s = 0.0
        self._held_steps = self._max_stage = 0
        self._is_success = False
        low, high = ACTION_LIMITS.astype(np.float32)
        self.action_space = spaces.Box(low, high)
        image_space = spaces.Box(0, 255, image_shape, np.uint8)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict(dict.fromkeys(self._cameras, image_space)),
                # Soft limits give way a little, so measured positions may lie outside the commands' range.
                "agent_pos": spaces.Box(-2 * np.pi, 2 * np.pi, (len(STATE_NAMES),), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; the same seed gives the same one. There are no options."""
        super().reset(seed=seed)
        if options:
            raise ConfigError(f"sim_transfer has no reset options, got: {', '.join(options)}")
        self._physics.reset(self.np_random)
        self._held_steps = self._max_stage = 0
        self._is_success = False
        return self._observation(), self._info()

    def step(self, action: Float[np.ndarray, "dim"]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Command the arms for 40 ms.

        Raises:
            ValueError: the action has another shape, or is not finite.
        """
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (len(STATE_NAMES),):
            raise ValueError(f"an action has shape ({len(STATE_NAMES)},), got {command.shape}")
        if not np.isfinite(command).all():
            bad = [name for name, value in zip(STATE_NAMES, command, strict=True) if not np.isfinite(value)]
            raise ValueError(f"an action must be finite, got NaN or infinity for {', '.join(bad)}")
        self._physics.advance(command)
        stage = self.stage
        self._max_stage = max(self._max_stage, stage)
        self._held_steps = self._held_steps + 1 if stage == 4 else 0
        self._is_success |= self._held_steps >= HOLD_STEPS
        return self._observation(), float(stage), False, False, self._info()

    def observe(self) -> Observation:
        """Render and return the present observation."""
        started = time.perf_counter()
        self._pixels = self._cameras_open().render(self._physics.data, self._cameras)
        self._render_s = time.perf_counter() - started
        return {"pixels": dict(self._pixels), "agent_pos": self._physics.state}

    def render(self) -> UInt8[np.ndarray, "_h _w 3"] | None:
        """Return the view of the camera `front`, or None without a render mode."""
        if self.render_mode is None:
            return None
        return self._cameras_open().render(self._physics.data, ["front"])["front"]

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._rig is not None:
            self._rig.close()
            self._rig = None

    @property
    def physics(self) -> TransferPhysics:
        """The simulated world, for what a robot cannot see: the expert and measurements use it."""
        return self._physics

    @property
    def stage(self) -> int:
        """How far the task is at this moment, 0 to 4."""
        return self._physics.stage

    @property
    def box_position(self) -> Float[np.ndarray, "3"]:
        """Centre of the box [m]."""
        return self._physics.box_position

    @property
    def gripper_positions(self) -> Float[np.ndarray, "2 3"]:
        """Grasp centres of the left and the right hand [m]."""
        return self._physics.gripper_positions

    def _observation(self) -> Observation:
        if self.render_observations:
            return self.observe()
        self._render_s = 0.0
        stale = {camera: view.copy() for camera, view in self._pixels.items()}
        return {"pixels": stale, "agent_pos": self._physics.state}

    def _info(self) -> dict[str, Any]:
        return {
            "is_success": self._is_success,
            "stage": self.stage,
            "max_stage": self._max_stage,
            "render_s": self._render_s,
        }

    def _cameras_open(self) -> CameraRig:
        """Return the cameras; the context is made at first use, so that physics alone needs no OpenGL."""
        if self._rig is None:
            self._rig = CameraRig(self._physics.model, self._height, self._width)
        return self._rig


def _check_arguments(height: int, width: int, cameras: Sequence[str], render_mode: str | None) -> None:
    for name, value in (("render_height", height), ("render_width", width)):
        if not isinstance(value, int) or not 1 <= value <= MAX_IMAGE_SIDE:
            raise ConfigError(f"{name} must be a whole number from 1 to {MAX_IMAGE_SIDE}, got {value!r}")
    if isinstance(cameras, str) or not cameras or len(set(cameras)) < len(cameras):
        raise ConfigError(f"cameras must be different names out of {', '.join(CAMERAS)}, got {cameras!r}")
    for camera in cameras:
        if camera not in CAMERAS:
            raise ConfigError(f"sim_transfer has no camera {camera!r}; {nearest(str(camera), CAMERAS)}")
    if render_mode not in (None, "rgb_array"):
        raise ConfigError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
