"""The task `detour` as a Gymnasium environment, `vla/Detour-v0`.

    observation  {"pixels": {"top": uint8 [h, w, 3]}, "agent_pos": float32 [2]}
    action       float32 [2]  where the puck shall be in 50 ms [m]
    reward       1 while the puck is on the disc and has never touched the post, else 0
    terminated   never
    truncated    after 64 steps, by Gymnasium's TimeLimit
    info         is_success (the puck was on the disc for 5 steps; stays true), mode (`left` or `right` of the
                 post, once it is passed), touched, render_s

World frame: x from the start to the disc, y to the left, z up. An episode is decided by the seed of its
reset: how far to either side post and disc stand. The state says where the puck is; only the camera sees the
others.
"""

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, UInt8

from vla.base.errors import ConfigError
from vla.rollout.worlds.cameras import CameraRig
from vla.rollout.worlds.detour.world import CAMERA, CONTROL_HZ
from vla.rollout.worlds.gl import mujoco

PUCK_RADIUS, POST_RADIUS, DISC_RADIUS = 0.025, 0.08, 0.045
"""[m]"""
START, POST_X, DISC_X = np.zeros(2), 0.16, 0.54
"""[m] The post is so near that the mean of both ways touches it within the first chunk of 8. Where it stood 5
or 15 cm further away, regression swerved in time and solved 62 and 73 % of 100 episodes."""
POST_Y, DISC_Y = 0.03, 0.1
"""How far post and disc may stand to either side [m]."""
HOLD_STEPS = 5
"""How long the puck must be on the disc to count: it could fly over it."""
MAX_SPEED = 0.8
"""Of the commanded place [m/s]."""
TIMESTEP = 0.005
"""Of the physics [s]."""
SUBSTEPS = round(1 / (CONTROL_HZ * TIMESTEP))
LOWEST, HIGHEST = np.array([-0.1, -0.35]), np.array([0.75, 0.35])
"""Of a command [m]."""
MAX_IMAGE_SIDE = 4096

Observation = dict[str, Any]


class DetourEnv(gymnasium.Env[Observation, np.ndarray]):
    """Go round the post, to the disc.

    Args:
        render_height: of the image [pixel].
        render_width: likewise.
        render_mode: `rgb_array` or None.
        repeated: post and disc stand at one of nine pairs of places instead of anywhere in their ranges. The
            expert demonstrates so: each start is seen many times, with both ways. Where no start came twice,
            regression learned by heart which way was gone from each, and solved 77 % of 100 episodes.

    Attributes:
        render_observations: while this is False, `step` and `reset` return the image of the last rendered
            observation, which is stale (all zeros if there was none).
        puck: where it is [m].
        post: where its axis is [m].
        disc: where its centre is [m].

    Raises:
        ConfigError: an argument is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012  Gymnasium's name

    def __init__(
        self,
        *,
        render_height: int = 128,
        render_width: int = 128,
        render_mode: str | None = None,
        repeated: bool = False,
    ) -> None:
        for name, side in (("render_height", render_height), ("render_width", render_width)):
            if not isinstance(side, int) or not 1 <= side <= MAX_IMAGE_SIDE:
                raise ConfigError(f"{name} must be a whole number from 1 to {MAX_IMAGE_SIDE}, got {side!r}")
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        self.render_mode, self.render_observations = render_mode, True
        self._size, self._repeated = (render_height, render_width), repeated
        self._model = mujoco.MjModel.from_xml_string(_scene(*self._size))
        self._data = mujoco.MjData(self._model)
        self._rig: CameraRig | None = None
        self._image = np.zeros((*self._size, 3), np.uint8)
        self._render_s = 0.0
        self._command: np.ndarray = START
        self._begin(0.0, 0.0)
        self.action_space = spaces.Box(LOWEST.astype(np.float32), HIGHEST.astype(np.float32))
        image = spaces.Box(0, 255, self._image.shape, np.uint8)
        self.observation_space = spaces.Dict(
            {"pixels": spaces.Dict({CAMERA: image}), "agent_pos": spaces.Box(-1, 1, (2,), np.float32)}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; the same seed gives the same one. There are no options."""
        super().reset(seed=seed)
        if options:
            raise ConfigError(f"detour has no reset options, got: {', '.join(options)}")
        aside = self.np_random.integers(-1, 2, 2) if self._repeated else self.np_random.uniform(-1, 1, 2)
        self._begin(*map(float, aside))
        return self._observation(), self._info()

    def step(self, action: Float[np.ndarray, "dim"]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Command the puck for 50 ms.

        Raises:
            ValueError: the action has another shape, or is not finite.
        """
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (2,) or not np.isfinite(command).all():
            raise ValueError(f"an action is two finite numbers (x, y), got {command.tolist()}")
        change: np.ndarray = command - self._command
        reach = MAX_SPEED / CONTROL_HZ
        self._command = self._command + change * min(1.0, reach / max(float(np.linalg.norm(change)), 1e-9))
        self._data.ctrl[:] = self._command = np.clip(self._command, LOWEST, HIGHEST)
        for _ in range(SUBSTEPS):
            mujoco.mj_step(self._model, self._data)
            self._touched |= self._data.ncon > 0  # puck and post are all that can touch
        self._follow()
        return self._observation(), float(self._on_disc()), False, False, self._info()

    @property
    def puck(self) -> Float[np.ndarray, "2"]:
        return np.array(self._data.qpos)

    def render(self) -> UInt8[np.ndarray, "_h _w 3"] | None:
        """Return the view of the camera, or None without a render mode."""
        return None if self.render_mode is None else self._view()

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._rig is not None:
            self._rig.close()
            self._rig = None

    def _begin(self, post_aside: float, disc_aside: float) -> None:
        """Put everything in its place; post and disc by shares of their ranges, -1 to 1."""
        self.post = np.array([POST_X, POST_Y * post_aside])
        self.disc = np.array([DISC_X, DISC_Y * disc_aside])
        self._command = START.copy()
        mujoco.mj_resetData(self._model, self._data)
        self._data.mocap_pos[:, :2] = [self.post, self.disc]
        self._data.qpos[:] = self._data.ctrl[:] = START
        mujoco.mj_forward(self._model, self._data)
        self._mode, self._held = "", 0
        self._touched: bool = False
        self._is_success: bool = False

    def _follow(self) -> None:
        """Note what has happened."""
        x, y = self.puck
        if not self._mode and x > self.post[0]:
            self._mode = "left" if y > self.post[1] else "right"
        self._held = self._held + 1 if self._on_disc() else 0
        self._is_success |= self._held >= HOLD_STEPS

    def _on_disc(self) -> bool:
        return not self._touched and bool(np.linalg.norm(self.puck - self.disc) < DISC_RADIUS)

    def _observation(self) -> Observation:
        self._render_s = 0.0
        if self.render_observations:
            started = time.perf_counter()
            self._image = self._view()
            self._render_s = time.perf_counter() - started
        return {"pixels": {CAMERA: self._image.copy()}, "agent_pos": self.puck.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        return {
            "is_success": self._is_success,
            "mode": self._mode,
            "touched": self._touched,
            "render_s": self._render_s,
        }

    def _view(self) -> np.ndarray:
        if self._rig is None:  # at first use, so that physics alone needs no OpenGL
            self._rig = CameraRig(self._model, *self._size)
        return self._rig.render(self._data, [CAMERA])[CAMERA]


def _scene(height: int, width: int) -> str:
    """Return the model; post and disc are bodies that are put somewhere and stay there."""
    return f"""
<mujoco model="detour">
<option timestep="{TIMESTEP}" integrator="implicitfast" gravity="0 0 0"/>
<visual>
  <global offwidth="{width}" offheight="{height}"/>
  <quality shadowsize="0" offsamples="0"/>
  <headlight ambient=".5 .5 .5" diffuse=".5 .5 .5" specular="0 0 0"/>
</visual>
<worldbody>
  <geom type="box" size="0.6 0.5 0.01" pos="0.3 0 -0.03" rgba=".74 .66 .55 1" contype="0" conaffinity="0"/>
  <camera name="{CAMERA}" pos="0.26 0 1.0" xyaxes="0 -1 0 1 0 0" fovy="42"/>
  <body name="post" mocap="true">
    <geom type="cylinder" size="{POST_RADIUS} 0.03" pos="0 0 0.03" rgba=".88 .10 .12 1"/>
  </body>
  <body name="disc" mocap="true">
    <geom type="cylinder" size="{DISC_RADIUS} 0.001" rgba=".1 .6 .2 1" contype="0" conaffinity="0"/>
  </body>
  <body name="puck">
    <joint name="x" type="slide" axis="1 0 0" damping="1"/>
    <joint name="y" type="slide" axis="0 1 0" damping="1"/>
    <geom type="cylinder" size="{PUCK_RADIUS} 0.015" pos="0 0 0.015" mass="0.2" rgba=".16 .40 .85 1"/>
  </body>
</worldbody>
<actuator>
  <position joint="x" kp="60" dampratio="1"/>
  <position joint="y" kp="60" dampratio="1"/>
</actuator>
</mujoco>"""
