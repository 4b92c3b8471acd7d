"""Turn an environment's observations into streams by name, the form that everything else speaks.

    an environment gives  {"pixels": {camera: uint8 [h, w, 3]}, "agent_pos": number [S], sensor: number [...]}
    an observation is     {camera: uint8 [h, w, 3], "state": float32 [S], sensor: float32 [...]}

The former is LeRobot's convention; no single one of its keys must be there. An image in place of the
dictionary is the camera `image`, as the reader of datasets calls the column `observation.image`. A sensor is
a further array of numbers, a stream of the same name. What is neither is dropped, and so is a sensor with the
name of a camera, or `state`, `action` or `task`.
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
        EnvironmentSetupError: the observations are of another form, or a camera is not there or no RGB image.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], cameras: Mapping[str, str]) -> None:
        super().__init__(env)
        space = _require_streams(env)
        views = views_of(space.spaces)
        self._renamed = dict(cameras)
        self._cameras = self._renamed or {name: name for name in views}
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

    def observation(self, observation: dict[str, Any]) -> Observation:
        """Convert one observation."""
        views = views_of(observation)
        # A space sorts its names: unless they are configured, the order is the environment's own.
        cameras = self._renamed or {name: name for name in views if name in self._cameras}
        seen = {wanted: np.asarray(views[name]) for wanted, name in cameras.items()}
        return seen | {
            self._others[key]: np.asarray(value, np.float32)
            for key, value in observation.items()
            if key in self._others
        }


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
        raise EnvironmentSetupError(
            f"view '{name}' of '{_name(env)}' is {views[name]}, no uint8 image [h, w, 3]; name those "
            "that the policy looks at, the others are dropped: --set env.cameras.NAME=VIEW, VIEW "
            f"one of {', '.join(images)}"
        )


def _name(env: gymnasium.Env[Any, Any]) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__
