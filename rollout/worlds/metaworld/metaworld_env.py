"""Meta-World's tasks seen by cameras: `vla/MetaWorld-reach-v3` and 49 more.

    observation  {"pixels": {camera: uint8 [h, w, 3]}, "agent_pos": float32 [9]}
    action       float32 [4]  by how much the hand shall move in 12.5 ms [cm, within 1], and the gripper's
                 effort, -1 opens and 1 closes
    reward       the package's own, 0 to 10
    terminated   at success; truncated after 200 steps
    info         is_success (stays true), solved_steps (in how many steps the task was solved), render_s

Physics, start positions, reward and success are those of the package `metaworld` (Yu et al., 2019, arXiv
1910.10897), with goals that differ between episodes. The package's observation holds where everything is;
`agent_pos` keeps the hand and its fingers. The camera `corner2` stands where 3D Diffusion Policy (Ze et al.,
2024, arXiv 2403.03954, `metaworld_wrapper.py`) put it. It hangs upside down, so its image is turned by 180
degrees.

`metaworld` wants another MuJoCo than the rest of vla is tested with, so it has an environment of its own:
make metaworld.
"""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Float32, UInt8

from vla.base.errors import ConfigError, EnvironmentSetupError, nearest
from vla.rollout.worlds.cameras import CameraRig
from vla.rollout.worlds.metaworld.tasks import TASKS
from vla.rollout.worlds.metaworld.world import CAMERAS, CONTROL_HZ, DEFAULT_CAMERAS, STATE_NAMES

MOVED = {"corner2": (0.6, 0.295, 0.8)}
"""Where a camera stands [m], if not where the package puts it."""
UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")
DEPTH = (0.1, 1.5)
"""Between what distances things are drawn, in units of the scene's extent; 3D Diffusion Policy's."""
MAX_IMAGE_SIDE = 1024

Observation = dict[str, Any]


class MetaWorldEnv(gymnasium.Env[Observation, np.ndarray]):
    """A task of Meta-World.

    Args:
        task: its name in the package without `-v3`, such as `reach`.
        render_height: of every image [pixel].
        render_width: likewise.
        cameras: which of `CAMERAS` an observation holds, in this order.
        shadows: False draws neither shadows, reflections nor smooth edges, 8 times as fast on a CPU (about 20
            ms instead of 170 ms a view of 128x128), but other pixels than the package's.
        render_mode: `rgb_array` or None; `render` shows the first camera.

    Attributes:
        render_observations: while this is False, `step` and `reset` return the images of the last rendered
            observation (all zeros if there was none).
        everything: the package's own observation, which its experts read.

    Raises:
        ConfigError: an argument is out of range.
        EnvironmentSetupError: `metaworld` is not installed, or this machine cannot render.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ, "tells_task": True}  # noqa: RUF012

    def __init__(
        self,
        *,
        task: str,
        render_height: int = 128,
        render_width: int = 128,
        cameras: Sequence[str] = DEFAULT_CAMERAS,
        shadows: bool = True,
        render_mode: str | None = None,
    ) -> None:
        _check_arguments(task, render_height, render_width, cameras, render_mode)
        self.render_mode, self.render_observations = render_mode, True
        self.task, self._size = task, (render_height, render_width)
        self._inner = _metaworld(task)
        self._prepare_views(shadows)
        self._rig: CameraRig | None = None
        shape = (*self._size, 3)
        self._pixels = {camera: np.zeros(shape, np.uint8) for camera in cameras}
        self._render_s, self._solved_steps = 0.0, 0
        self.everything = np.zeros(39)
        self.action_space = spaces.Box(-1, 1, (4,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict(dict.fromkeys(cameras, spaces.Box(0, 255, shape, np.uint8))),
                "agent_pos": spaces.Box(-2, 2, (len(STATE_NAMES),), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; the same seed puts things in the same places. There are no options."""
        super().reset(seed=seed)
        if options:
            raise ConfigError(f"Meta-World has no reset options, got: {', '.join(options)}")
        self._inner.seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        self.everything, _ = self._inner.reset()
        self._solved_steps = 0
        return self._observation(), self._info()

    def step(self, action: Float[np.ndarray, "dim"]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the hand for 12.5 ms.

        Raises:
            ValueError: the action has another shape, or is not finite.
        """
        command = np.asarray(action, np.float64)
        if command.shape != (4,) or not np.isfinite(command).all():
            raise ValueError(f"an action is four finite numbers, got {command.tolist()}")
        self.everything, reward, _, _, told = self._inner.step(np.clip(command, -1, 1))
        self._solved_steps += bool(told["success"])
        observation, info = self._observation(), self._info()
        return observation, float(reward), info["is_success"], False, info

    def render(self) -> UInt8[np.ndarray, "_h _w 3"] | None:
        """Return the view of the first camera, or None without a render mode."""
        return None if self.render_mode is None else self._views(list(self._pixels)[:1]).popitem()[1]

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._rig is not None:
            self._rig.close()
            self._rig = None

    @property
    def hand(self) -> Float32[np.ndarray, "9"]:
        """Where the hand, its right and its left finger are [m]."""
        data = self._inner.data
        fingers = [data.site(f"{side}EndEffector").xpos for side in ("right", "left")]
        return np.concatenate([data.body("hand").xpos, *fingers]).astype(np.float32)

    def _observation(self) -> Observation:
        self._render_s = 0.0
        if self.render_observations:
            started = time.perf_counter()
            self._pixels = self._views(list(self._pixels))
            self._render_s = time.perf_counter() - started
        views = {camera: view.copy() for camera, view in self._pixels.items()}
        return {"pixels": views, "agent_pos": self.hand}

    def _info(self) -> dict[str, Any]:
        return {
            "is_success": self._solved_steps > 0,
            "solved_steps": self._solved_steps,
            "task": TASKS[self.task].instruction,
            "render_s": self._render_s,
        }

    def _prepare_views(self, shadows: bool) -> None:
        """Set what a reset takes over: where cameras are is computed with where everything else is."""
        model = self._inner.model
        model.vis.global_.offheight, model.vis.global_.offwidth = self._size
        model.vis.map.znear, model.vis.map.zfar = DEPTH
        if not shadows:
            model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
            model.mat_reflectance[:] = 0
        for camera, place in MOVED.items():
            model.camera(camera).pos[:] = place

    def _views(self, cameras: list[str]) -> dict[str, np.ndarray]:
        if self._rig is None:  # at first use, so that physics alone needs no OpenGL
            self._rig = CameraRig(self._inner.model, *self._size)
        views = self._rig.render(self._inner.data, cameras)
        return {name: view[::-1, ::-1] if name in UPSIDE_DOWN else view for name, view in views.items()}


def _metaworld(task: str) -> Any:
    """Make the package's environment of a task, with other places of things in every episode."""
    from vla.rollout.worlds.gl import mujoco  # noqa: F401  chooses how to render before metaworld imports it

    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
    except ImportError as error:
        raise EnvironmentSetupError(
            f"Meta-World's tasks need the package metaworld ({error}); run make metaworld, then "
            ".venv-metaworld/bin/vla"
        ) from error
    # The seed keeps it from drawing from NumPy's global generator.
    inner = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{task}-v3-goal-observable"](seed=0)
    inner._freeze_rand_vec, inner.seeded_rand_vec = False, True
    return inner


def _check_arguments(
    task: str, height: int, width: int, cameras: Sequence[str], render_mode: str | None
) -> None:
    if task not in TASKS:
        raise ConfigError(f"Meta-World has no task '{task}'; {nearest(task, TASKS)}")
    for name, value in (("render_height", height), ("render_width", width)):
        if not isinstance(value, int) or not 1 <= value <= MAX_IMAGE_SIDE:
            raise ConfigError(f"{name} must be a whole number from 1 to {MAX_IMAGE_SIDE}, got {value!r}")
    if isinstance(cameras, str) or not cameras or len(set(cameras)) < len(cameras):
        raise ConfigError(f"cameras must be different names out of {', '.join(CAMERAS)}, got {cameras!r}")
    for camera in cameras:
        if camera not in CAMERAS:
            raise ConfigError(f"Meta-World has no camera {camera!r}; {nearest(str(camera), CAMERAS)}")
    if render_mode not in (None, "rgb_array"):
        raise ConfigError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
