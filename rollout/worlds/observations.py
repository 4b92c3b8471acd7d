"""Bring an environment's observations into the one form that policies know.

    asked    {"pixels": uint8 [h, w, 3] or {camera: uint8 [h, w, 3]}, "agent_pos": number [S], ...}
    given    {"pixels": {camera: uint8 [h, w, 3]}, "agent_pos": float32 [S]}

This is LeRobot's convention for environments. A single image is called `image`, as the reader of data
sets calls the column `observation.image`.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from vla.base.errors import EnvironmentSetupError

ONLY_CAMERA = "image"


class CameraObservations(gymnasium.ObservationWrapper[dict[str, Any], np.ndarray, dict[str, Any]]):
    """Name the cameras as the policy does, and drop what it does not look at.

    Args:
        env: any environment with `pixels` and `agent_pos`.
        cameras: the policy's name -> the environment's; empty takes all of them under their own names.

    Raises:
        EnvironmentSetupError: the observations are of another form, or a camera is not there or no RGB image.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], cameras: Mapping[str, str]) -> None:
        super().__init__(env)
        views, position = _require_pixels(env)
        self._cameras = dict(cameras) or {name: name for name in views}
        for wanted, name in self._cameras.items():
            if name not in views:
                raise EnvironmentSetupError(
                    f"env.cameras maps '{wanted}' to '{name}', but '{_name(env)}' has: {', '.join(views)}"
                )
            if not _is_image(views[name]):
                images = [view for view, space in views.items() if _is_image(space)]
                raise EnvironmentSetupError(
                    f"view '{name}' of '{_name(env)}' is {views[name]}, no uint8 image [h, w, 3]; name those "
                    "that the policy looks at, the others are dropped: --set env.cameras.NAME=VIEW, VIEW "
                    f"one of {', '.join(images)}"
                )
        shown: dict[str, spaces.Space[Any]] = {wanted: views[name] for wanted, name in self._cameras.items()}
        limits = position.low.astype(np.float32), position.high.astype(np.float32)
        self.observation_space = spaces.Dict({"pixels": spaces.Dict(shown), "agent_pos": spaces.Box(*limits)})

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Convert one observation."""
        pixels = observation["pixels"]
        views = pixels if isinstance(pixels, Mapping) else {ONLY_CAMERA: pixels}
        return {
            "pixels": {wanted: views[name] for wanted, name in self._cameras.items()},
            "agent_pos": np.asarray(observation["agent_pos"], np.float32),
        }


def _require_pixels(
    env: gymnasium.Env[Any, Any],
) -> tuple[dict[str, spaces.Space[Any]], spaces.Box]:
    """Return the spaces of the views, one of them an image at least, and of the state.

    Raises:
        EnvironmentSetupError: the environment has no such; the message shows what it has.
    """
    space = env.observation_space
    if isinstance(space, spaces.Dict) and isinstance(env.action_space, spaces.Box):
        pixels, position = space.spaces.get("pixels"), space.spaces.get("agent_pos")
        views = dict(pixels.spaces) if isinstance(pixels, spaces.Dict) else {ONLY_CAMERA: pixels}
        vectors = isinstance(position, spaces.Box) and len(position.shape) == len(env.action_space.shape) == 1
        if vectors and any(_is_image(view) for view in views.values()):
            assert isinstance(position, spaces.Box)
            return {name: view for name, view in views.items() if view is not None}, position
    raise EnvironmentSetupError(
        f"environment '{_name(env)}' observes {space}; vla needs "
        "{'pixels': {camera: uint8 image}, 'agent_pos': state} and a continuous action; "
        "pass the option that gives them (--set env.kwargs...) or wrap it: docs/environments.md"
    )


def _is_image(space: spaces.Space[Any] | None) -> bool:
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 3 and space.shape[-1] == 3


def _name(env: gymnasium.Env[Any, Any]) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__
