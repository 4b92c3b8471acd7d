"""Render the scene's cameras offscreen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vla.base.errors import EnvironmentSetupError
from vla.rollout.worlds.gl import HOW_TO_RENDER, backend, mujoco, require_rendering


class CameraRig:
    """One OpenGL context that renders named cameras; it belongs to the thread that made it.

    Args:
        model: the MuJoCo model; its offscreen buffer must have exactly this size.
        height: of the images [pixel].
        width: likewise.

    Raises:
        EnvironmentSetupError: this machine cannot render.
    """

    def __init__(self, model: Any, height: int, width: int) -> None:
        require_rendering()
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # each backend raises its own kind
            raise EnvironmentSetupError(
                f"MuJoCo cannot render with MUJOCO_GL={backend()} ({error}); {HOW_TO_RENDER}"
            ) from error

    def render(self, data: Any, cameras: Sequence[str]) -> dict[str, UInt8[np.ndarray, "_h _w 3"]]:
        """Return a new RGB image of every camera."""
        images = {}
        for camera in cameras:
            self._renderer.update_scene(data, camera)
            images[camera] = self._renderer.render()
        return images

    def close(self) -> None:
        """Free the context; left to the garbage collector, that prints errors at exit."""
        self._renderer.close()
