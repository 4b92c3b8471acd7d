"""What the policy server keeps of one client: its last observations, checked before they are taken."""

from collections import deque

import numpy as np
from jaxtyping import Float32, UInt8

from vla.base.errors import ServerError
from vla.base.wire import Message, PolicyInfo

MAX_SEED = 2**63


class Session:
    """The observations of a client since its last reset; the first one stands for those before it.

    Args:
        info: of the policy, which decides what an observation must hold.
    """

    def __init__(self, info: PolicyInfo) -> None:
        self._info = info
        self._pixels: deque[dict[str, np.ndarray]] = deque(maxlen=info.obs_horizon)
        self._state: deque[np.ndarray] = deque(maxlen=info.obs_horizon)

    def reset(self) -> None:
        """Forget all observations."""
        self._pixels.clear()
        self._state.clear()

    def observe(self, message: Message) -> None:
        """Take an observation; one that is not right changes nothing.

        Args:
            message: with `pixels` and `agent_pos`; cameras that the policy does not look through are
                left out.

        Raises:
            ServerError: something is missing or of another shape; the line names it.
        """
        pixels = {camera: self._image(message, camera) for camera in self._info.camera_names}
        state = self._vector(message)
        times = 1 if self._state else self._info.obs_horizon
        self._pixels.extend([pixels] * times)
        self._state.extend([state] * times)

    def history(
        self,
    ) -> tuple[dict[str, UInt8[np.ndarray, "1 T_obs _h _w 3"]], Float32[np.ndarray, "1 T_obs S"]]:
        """Return the last observations as a batch of one robot, oldest first."""
        pixels = {
            camera: np.stack([frames[camera] for frames in self._pixels])[None]
            for camera in self._info.camera_names
        }
        return pixels, np.stack(self._state)[None].astype(np.float32)

    def seed(self, message: Message) -> int | None:
        """Return the seed that a request names.

        Raises:
            ServerError: it is no integer of 63 bits.
        """
        seed = message.get("seed")
        if seed is None or (type(seed) is int and 0 <= seed < MAX_SEED):
            return seed
        raise ServerError(f"'seed' must be an integer from 0 to 2^63 - 1, found {seed!r:.40}")

    def task(self, message: Message) -> str:
        """Return the task text that a request names; empty if it names none.

        Raises:
            ServerError: it is no text.
        """
        task = message.get("task")
        if task is None or isinstance(task, str):
            return task or ""
        raise ServerError(f"'task' must be a text, found {task!r:.40}")

    def _image(self, message: Message, camera: str) -> np.ndarray:
        pixels = message.get("pixels")
        if not isinstance(pixels, dict) or camera not in pixels:
            names = ", ".join(map(str, pixels)) if isinstance(pixels, dict) else "none"
            raise ServerError(
                f"the policy looks through camera '{camera}', the observation has: {names:.200}"
            )
        image = pixels[camera]
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            raise ServerError(f"the image of camera '{camera}' must be a uint8 array")
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ServerError(
                f"the image of camera '{camera}' must have shape [height, width, 3], "
                f"found {list(image.shape)}"
            )
        if self._pixels and self._pixels[-1][camera].shape != image.shape:
            raise ServerError(
                f"camera '{camera}' sent images of shape {list(self._pixels[-1][camera].shape)}, now "
                f"{list(image.shape)}; sizes may change after a reset"
            )
        return image

    def _vector(self, message: Message) -> np.ndarray:
        state = message.get("agent_pos")
        shape = (self._info.state_dim,)
        if not isinstance(state, np.ndarray) or state.dtype != np.float32 or state.shape != shape:
            found = (
                f"{state.dtype} {list(state.shape)}"
                if isinstance(state, np.ndarray)
                else type(state).__name__
            )
            raise ServerError(f"'agent_pos' must be a float32 array of {shape[0]} values, found {found}")
        if not np.isfinite(state).all():
            raise ServerError(f"'agent_pos' is not finite: value {int((~np.isfinite(state)).argmax())}")
        return state
