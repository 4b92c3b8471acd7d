"""Turn an environment's observations into streams by name, the form that everything else speaks.

    an environment gives  {"pixels": {camera: uint8 [h, w, 3]}, "agent_pos": number [S], sensor: number [...]}
    an observation is     {camera: uint8 [h, w, 3], "state": float32 [S], sensor: float32 [...]}

The former is LeRobot's convention; no single one of its keys must be there. An image in place of the
dictionary is the camera `image`, as the reader of datasets calls the column `observation.image`. A sensor is
a further array of numbers, a stream of the same name. What is neither is dropped, and so is a sensor with the
name of a camera, or `state`, `action` or `task`.

An environment is not trusted. What it gives is copied, because it may write its next observation into the
same arrays, and held against the space that it declares: floats where bytes were declared would be black
images. Ranges of numbers are not: physics leaves declared limits a little.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from vla.base.errors import EnvironmentSetupError
from vla.cache.stream import ACTION, STATE, TASK

PIXELS, AGENT_POS = "pixels", "agent_pos"
ONLY_CAMERA = "image"
SUCCESS_KEYS = ("is_success", "success")
"""Of `info`: LeRobot's, and Gymnasium's."""
Observation = dict[str, Any]
"""Arrays by stream name."""


def views_of(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `pixels` holds, by camera: images, or spaces of images."""
    pixels = observation.get(PIXELS, {})
    return dict(pixels) if isinstance(pixels, Mapping) else {ONLY_CAMERA: pixels}


class Observations(gymnasium.ObservationWrapper[Observation, np.ndarray, dict[str, Any]]):
    """Give observations as streams; name the cameras as the policy does.

    Args:
        env: any environment that observes a dictionary and takes one vector of actions.
        cameras: the policy's name -> the environment's; empty takes all of them under their own names.

    Attributes:
        camera_names: streams that are images.

    Raises:
        EnvironmentSetupError: the observations are of another form, or a camera is not there or no RGB image;
            in `reset` and `step`: what is given is not what was declared, or a reward is not one number.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], cameras: Mapping[str, str]) -> None:
        super().__init__(env)
        space = _require_streams(env)
        views = views_of(space.spaces)
        self._renamed = dict(cameras)
        self._cameras = self._renamed or {name: name for name in views}
        self._space, self._views, self._step = space, views, 0
        self.camera_names = tuple(self._cameras)
        for wanted, name in self._cameras.items():
            _require_camera(env, views, wanted, name)
        taken = {*self._cameras, STATE, ACTION, TASK, PIXELS, AGENT_POS}
        self._others = {
            name: name for name, part in space.spaces.items() if name not in taken and _is_numbers(part)
        }
        if AGENT_POS in space.spaces:
            self._others[AGENT_POS] = STATE
        shown = {wanted: views[name] for wanted, name in self._cameras.items()}
        numbers = {stream: _float32(space[key]) for key, stream in self._others.items()}
        self.observation_space = spaces.Dict(shown | numbers)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        self._step = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take a step; reward, ends and success become plain numbers and truths, also out of arrays."""
        self._step += 1
        seen, reward, terminated, truncated, info = self.env.step(action)
        told = {
            key: bool(self._one(f"info['{key}']", info[key]))
            for key in SUCCESS_KEYS
            if info.get(key) is not None
        }
        return (
            self.observation(seen),
            self._one("reward", reward),
            bool(self._one("terminated", terminated)),
            bool(self._one("truncated", truncated)),
            {**info, **told},
        )

    def observation(self, observation: Any) -> Observation:
        """Convert one observation."""
        if not isinstance(observation, Mapping):
            raise EnvironmentSetupError(
                f"'{_name(self.env)}' gave {type(observation).__name__} {str(observation)[:100]!r} for an "
                "observation; reset must return (dictionary, info), step five values: docs/environments.md"
            )
        views = views_of(observation)
        # A space sorts its names: unless they are configured, the order is the environment's own.
        given = [name for name in views if name in self._cameras]
        cameras = self._renamed or {name: name for name in [*given, *self._cameras]}
        seen = {wanted: self._image(views, name) for wanted, name in cameras.items()}
        given = [key for key in observation if key in self._others]
        numbers = dict.fromkeys([*given, *self._others])
        return seen | {self._others[key]: self._numbers(observation, key) for key in numbers}

    def _image(self, views: Mapping[str, Any], name: str) -> np.ndarray:
        """Copy an image; one that is not rendered now is nobody's business."""
        if not getattr(self.env.unwrapped, "render_observations", True) and name in views:
            return np.asarray(views[name])
        return self._declared(f"view '{name}'", views.get(name), self._views[name])

    def _numbers(self, observation: Mapping[str, Any], key: str) -> np.ndarray:
        found = self._declared(f"'{key}'", observation.get(key), self._space[key], "fiub")
        return found.astype(np.float32)

    def _declared(self, what: str, value: Any, space: spaces.Space[Any], dtypes: str = "") -> np.ndarray:
        """Copy an array that is what its space says.

        Args:
            what: it is, for the message.
            value: as the environment gave it.
            space: as the environment declared it.
            dtypes: the kinds that will do, in NumPy's letters; "" is that of the space alone.

        Raises:
            EnvironmentSetupError: it is missing, of another shape or dtype.
        """
        found = np.array(value)
        fits = found.dtype.kind in dtypes if dtypes else found.dtype == space.dtype
        if fits and found.shape == space.shape:
            return found
        gave = "nothing" if value is None else f"{found.dtype} {list(found.shape)}"
        if found.dtype.kind in "fiub" and found.size:
            gave += f" from {float(found.min()):g} to {float(found.max()):g}"
        raise EnvironmentSetupError(
            f"'{_name(self.env)}' declares {what} as {space.dtype} {list(space.shape or ())} and gave {gave} "
            f"at step {self._step} of an episode; it must give what its observation_space says: "
            "docs/environments.md"
        )

    def _one(self, what: str, value: Any) -> float:
        """Return one number, also out of an array of one.

        Raises:
            EnvironmentSetupError: it is none, several, or NaN.
        """
        found = np.asarray(value)
        if found.size == 1 and found.dtype.kind in "fiub" and not np.isnan(found).any():
            return float(found.item())
        gave = f"{found.dtype} {list(found.shape)}" if found.size != 1 else repr(found.item())
        raise EnvironmentSetupError(
            f"'{_name(self.env)}' gave {what} = {gave[:100]} at step {self._step} of an episode; it must be "
            "one number"
        )


def not_finite(env_id: str, stream: str, values: np.ndarray, when: str) -> EnvironmentSetupError | None:
    """Return an error that names the first number of a stream which is NaN or infinite; None if none is.

    Args:
        env_id: what the error calls the environment.
        stream: its name; the state is called by the environment's own key.
        values: of one instant.
        when: which instant.
    """
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return None
    place = tuple(int(axis) for axis in bad[0])
    key = AGENT_POS if stream == STATE else stream
    return EnvironmentSetupError(
        f"'{env_id}' gave '{key}'{list(place)} = {values[place]:g} at {when}; the environment must give "
        "finite numbers"
    )


def is_image(space: spaces.Space[Any] | None, num_axes: int = 3) -> bool:
    """Tell whether a space is one of RGB images; a history of them has four axes."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == num_axes and space.shape[-1] == 3


def _is_numbers(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and 1 <= len(space.shape) <= 2


def _float32(space: spaces.Space[Any]) -> spaces.Box:
    assert isinstance(space, spaces.Box)
    return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32))


def _require_streams(env: gymnasium.Env[Any, Any]) -> spaces.Dict:
    """Return the space of the observations.

    Raises:
        EnvironmentSetupError: it holds nothing that could be a stream, or the action is no vector.
    """
    space, action = env.observation_space, env.action_space
    if isinstance(space, spaces.Dict) and isinstance(action, spaces.Box) and len(action.shape) == 1:
        position, views = space.spaces.get(AGENT_POS), views_of(space.spaces).values()
        state_fits = position is None or (isinstance(position, spaces.Box) and len(position.shape) == 1)
        if state_fits and any([*map(_is_numbers, space.spaces.values()), *map(is_image, views)]):
            return space
    raise EnvironmentSetupError(
        f"environment '{_name(env)}' observes {space}; vla needs "
        "{'pixels': {camera: uint8 image}, 'agent_pos': state, sensor: numbers}, or some of it, and a "
        "continuous action; pass the option that gives them (--set env.kwargs...) or wrap it: "
        "docs/environments.md"
    )


def _require_camera(env: gymnasium.Env[Any, Any], views: Mapping[str, Any], wanted: str, name: str) -> None:
    """Check that the environment has an image for one of the policy's cameras.

    Raises:
        EnvironmentSetupError: it has not; the message names those there are.
    """
    if name not in views:
        raise EnvironmentSetupError(
            f"env.cameras maps '{wanted}' to '{name}', but '{_name(env)}' has: {', '.join(views) or 'none'}"
        )
    if not is_image(views[name]):
        images = [view for view, space in views.items() if is_image(space)]
        choose = (
            "name those that the policy looks at, the others are dropped: --set env.cameras.NAME=VIEW, VIEW "
            f"one of {', '.join(images)}"
        )
        raise EnvironmentSetupError(
            f"view '{name}' of '{_name(env)}' is {views[name]}, no uint8 image [h, w, 3]; "
            + (choose if images else "wrap the environment so that it gives some: docs/environments.md")
        )


def _name(env: gymnasium.Env[Any, Any]) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__
