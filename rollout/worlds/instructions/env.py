"""The world `instructions` as a Gymnasium environment, `vla/Instructions-v0`.

    observation  {"pixels": {"top": uint8 [h, w, 3]}, "agent_pos": float32 [3]}
    action       float32 [3]  where the hand shall be in 100 ms [m]; above 0.5 its magnet holds
    reward       1 while the named object lies on the named pad and no other was ever lifted, else 0
    terminated   never
    truncated    after 48 steps, by Gymnasium's TimeLimit
    info         task (the instruction), asked (what counts: `red box to green disc`), mode (what was done:
                 the first object that was put on a pad, and the pad), is_success (it lay there for 3 steps;
                 stays true), render_s

World frame: x away from the viewer, y to the left, z up. An episode is decided by the seed of its reset: the
task, its wording, and where everything stands. The state says where the hand is and whether something hangs
on it; only the camera sees the rest, and only the instruction says what to do.
"""

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, UInt8

from vla.base.errors import ConfigError
from vla.rollout.worlds.cameras import CameraRig
from vla.rollout.worlds.gl import mujoco
from vla.rollout.worlds.instructions.scene import HALF_HEIGHT, PAD_HALF, REACH, TIMESTEP, body, scene
from vla.rollout.worlds.instructions.wordings import OBJECTS, PADS, TASKS, WORDINGS, Task, sentences
from vla.rollout.worlds.instructions.world import CAMERA, CONTROL_HZ

GRASPS_WITHIN = 0.035
"""Of an object's centre, for the magnet to lift it [m]."""
APART = 0.125
"""Least distance between the centres of any two things at the start [m]."""
ON_PAD = PAD_HALF - 0.01
"""Most distance between the centres of an object and the pad that it is on [m]."""
LYING = HALF_HEIGHT + 0.006
"""Height of the centre of what lies [m]."""
HOLD_STEPS = 3
"""How long the object must lie on the pad to count."""
MAX_SPEED = 0.6
"""Of the commanded place [m/s]."""
SUBSTEPS = round(1 / (CONTROL_HZ * TIMESTEP))
CLOSED = 0.5
MAX_IMAGE_SIDE = 4096

Observation = dict[str, Any]


class InstructionsEnv(gymnasium.Env[Observation, np.ndarray]):
    """Take the named object to the named pad.

    Args:
        render_height: of the image [pixel].
        render_width: likewise.
        render_mode: `rgb_array` or None.
        wordings: which sentences instruct. `trained` and `unseen` are two lists without a sentence or a noun
            in common; `shuffled` gives a trained sentence of a task that is drawn by itself, so that chance
            is one in eight; `wrong` gives one of another task than the one that counts.

    Attributes:
        render_observations: while this is False, `step` and `reset` return the image of the last rendered
            observation, which is stale (all zeros if there was none).
        asked: the task that counts.
        told: the task that the instruction names.
        instruction: the sentence.

    Raises:
        ConfigError: an argument is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ, "tells_task": True}  # noqa: RUF012

    def __init__(
        self,
        *,
        render_height: int = 64,
        render_width: int = 64,
        render_mode: str | None = None,
        wordings: str = "trained",
    ) -> None:
        for name, side in (("render_height", render_height), ("render_width", render_width)):
            if not isinstance(side, int) or not 1 <= side <= MAX_IMAGE_SIDE:
                raise ConfigError(f"{name} must be a whole number from 1 to {MAX_IMAGE_SIDE}, got {side!r}")
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        if wordings not in WORDINGS:
            raise ConfigError(f"wordings must be one of {', '.join(WORDINGS)}, got {wordings!r}")
        self.render_mode, self.render_observations = render_mode, True
        self._size, self._wordings = (render_height, render_width), wordings
        self._model = mujoco.MjModel.from_xml_string(scene(*self._size))
        # Where the magnet takes hold: its own lower side, and the object's upper one.
        self._model.eq_data[:, :3] = 0, 0, -0.01
        self._model.eq_data[:, 3:6] = 0, 0, HALF_HEIGHT
        self._data = mujoco.MjData(self._model)
        self._bodies = [self._model.body(body(name)).id for name in OBJECTS]
        self._rig: CameraRig | None = None
        self._image = np.zeros((*self._size, 3), np.uint8)
        self._render_s = 0.0
        self._command: np.ndarray = np.zeros(2)
        self._begin(np.random.default_rng(0))
        low, high = np.array([-REACH, -REACH, 0]), np.array([REACH, REACH, 1])
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32))
        image = spaces.Box(0, 255, self._image.shape, np.uint8)
        self.observation_space = spaces.Dict(
            {"pixels": spaces.Dict({CAMERA: image}), "agent_pos": spaces.Box(-1, 1, (3,), np.float32)}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; the same seed gives the same one. There are no options."""
        super().reset(seed=seed)
        if options:
            raise ConfigError(f"instructions has no reset options, got: {', '.join(options)}")
        self._begin(self.np_random)
        return self._observation(), self._info()

    def step(self, action: Float[np.ndarray, "dim"]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Command the hand for 100 ms.

        Raises:
            ValueError: the action has another shape, or is not finite.
        """
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (3,) or not np.isfinite(command).all():
            raise ValueError(f"an action is three finite numbers (x, y, grip), got {command.tolist()}")
        change: np.ndarray = command[:2] - self._command
        reach = MAX_SPEED / CONTROL_HZ
        self._command = self._command + change * min(1.0, reach / max(float(np.linalg.norm(change)), 1e-9))
        self._data.ctrl[:] = self._command = np.clip(self._command, -REACH, REACH)
        self._switch_magnet(on=bool(command[2] > CLOSED))
        for _ in range(SUBSTEPS):
            mujoco.mj_step(self._model, self._data)
        self._follow()
        return self._observation(), float(self._solved()), False, False, self._info()

    @property
    def hand(self) -> Float[np.ndarray, "2"]:
        """Where it is [m]."""
        return np.array(self._data.qpos[-2:])

    @property
    def held(self) -> str:
        """Name of what hangs on the magnet; empty where nothing does."""
        return "" if self._held is None else OBJECTS[self._held]

    def place(self, name: str) -> Float[np.ndarray, "2"]:
        """Return where an object or a pad is [m]."""
        return np.array(self._data.body(body(name)).xpos[:2])

    def render(self) -> UInt8[np.ndarray, "_h _w 3"] | None:
        """Return the view of the camera, or None without a render mode."""
        return None if self.render_mode is None else self._view()

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._rig is not None:
            self._rig.close()
            self._rig = None

    def _begin(self, rng: np.random.Generator) -> None:
        """Draw an episode."""
        self.asked = TASKS[int(rng.integers(len(TASKS)))]
        others = {"shuffled": TASKS, "wrong": tuple(task for task in TASKS if task != self.asked)}
        chosen = others.get(self._wordings, (self.asked,))
        self.told = chosen[int(rng.integers(len(chosen)))]
        texts = sentences(self.told, unseen=self._wordings == "unseen")
        self.instruction = texts[int(rng.integers(len(texts)))]
        places = _places(rng, len(OBJECTS) + len(PADS))
        start = rng.uniform(-0.05, 0.05, 2)
        mujoco.mj_resetData(self._model, self._data)
        for index in range(len(OBJECTS)):
            self._data.qpos[3 * index : 3 * index + 2] = places[index]
        self._data.qpos[-2:] = self._data.ctrl[:] = start
        self._command = start
        self._data.mocap_pos[:, :2] = places[len(OBJECTS) :]
        mujoco.mj_forward(self._model, self._data)
        self._held: int | None = None
        self._lifted: set[str] = set()
        self._mode, self._rested = "", 0
        self._is_success: bool = False

    def _switch_magnet(self, on: bool) -> None:
        """Take hold of the nearest object within reach, or let go."""
        if on and self._held is None:
            away = [float(np.linalg.norm(self.place(name) - self.hand)) for name in OBJECTS]
            if min(away) < GRASPS_WITHIN:
                self._held = int(np.argmin(away))
                self._lifted.add(OBJECTS[self._held])
        elif not on:
            self._held = None
        self._data.eq_active[:] = [index == self._held for index in range(len(OBJECTS))]

    def _follow(self) -> None:
        """Note what has happened."""
        done = [Task(name, pad) for name in self._lifted for pad in PADS if self._lies_on(name, pad)]
        if not self._mode and done:
            self._mode = done[0].name
        self._rested = self._rested + 1 if self._solved() else 0
        self._is_success |= self._rested >= HOLD_STEPS

    def _solved(self) -> bool:
        return self._lifted == {self.asked.object} and self._lies_on(*self.asked)

    def _lies_on(self, name: str, pad: str) -> bool:
        lies = self.held != name and self._data.body(body(name)).xpos[2] < LYING
        return bool(lies and np.abs(self.place(name) - self.place(pad)).max() < ON_PAD)

    def _observation(self) -> Observation:
        self._render_s = 0.0
        if self.render_observations:
            started = time.perf_counter()
            self._image = self._view()
            self._render_s = time.perf_counter() - started
        state = np.array([*self.hand, self._held is not None], np.float32)
        return {"pixels": {CAMERA: self._image.copy()}, "agent_pos": state}

    def _info(self) -> dict[str, Any]:
        return {
            "task": self.instruction,
            "asked": self.asked.name,
            "mode": self._mode,
            "is_success": self._is_success,
            "render_s": self._render_s,
        }

    def _view(self) -> np.ndarray:
        if self._rig is None:  # at first use, so that physics alone needs no OpenGL
            self._rig = CameraRig(self._model, *self._size)
        return self._rig.render(self._data, [CAMERA])[CAMERA]


def _places(rng: np.random.Generator, count: int) -> Float[np.ndarray, "count 2"]:
    """Draw places on the table, apart from each other [m]; where the last one finds no room, all anew."""
    while True:
        found: list[np.ndarray] = []
        for _ in range(100):
            place = rng.uniform(-REACH + 0.02, REACH - 0.02, 2)
            if all(np.linalg.norm(place - other) > APART for other in found):
                found.append(place)
            if len(found) == count:
                return np.array(found)
