"""What the policy server keeps of one client: its last observations, checked before they are taken."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla.base.errors import ServerError
from vla.base.horizons import Horizons
from vla.base.wire import PROTOCOL, Message
from vla.cache.stream import Stream
from vla.embed.transforms import resize_images
from vla.rollout.robot_streams import missing_stream

MAX_SEED = 2**63


class Session:
    """The observations of a client since its last reset; the first one stands for those before it.

    Args:
        observes: what an observation must hold.
        horizons: of the policy.
        image_sizes: (height, width) [pixel] that cameras are resized to when a frame comes: once, and not at
            every decision that it is seen in.

    Attributes:
        memory: what the policy remembers of this episode.
    """

    def __init__(
        self,
        observes: Sequence[Stream],
        horizons: Horizons,
        image_sizes: Mapping[str, tuple[int, int]],
    ) -> None:
        self._observes, self._horizons, self._image_sizes = tuple(observes), horizons, image_sizes
        self._sent: dict[str, tuple[int, ...]] = {}
        self._seen: deque[dict[str, np.ndarray]] = deque(maxlen=horizons.obs_horizon)
        self.memory: Any = None

    def reset(self) -> None:
        """Forget all observations."""
        self._seen.clear()
        self.memory = None

    def observe(self, message: Message) -> None:
        """Take an observation; one that is not right changes nothing.

        Args:
            message: with `observation`; streams that the policy does not look at are left out.

        Raises:
            ServerError: something is missing or of another shape; the line names it.
        """
        given = message.get("observation")
        if not isinstance(given, Mapping):
            if "pixels" in message or "agent_pos" in message:
                raise ServerError(
                    f"the client speaks protocol 1 of vla, this server protocol {PROTOCOL}; install the "
                    "same vla on both sides"
                )
            raise ServerError(
                f"'observation' must be a map of arrays by stream name, found {type(given).__name__}"
            )
        if missing := missing_stream(self._observes, given):
            raise ServerError(f"{missing}, the observation has: {', '.join(map(str, given)) or 'none':.200}")
        seen = {
            stream.name: self._image(stream.name, given[stream.name])
            if stream.kind == "image"
            else _numbers(stream, given[stream.name])
            for stream in self._observes
        }
        self._sent = {name: value.shape for name, value in seen.items()}
        kept = resize_images(seen, self._image_sizes)
        self._seen.extend([kept] * (1 if self._seen else self._horizons.obs_horizon))

    def history(self) -> dict[str, np.ndarray]:
        """Return the last observations as a batch of one robot, [1, T_obs, ...], oldest first."""
        return {
            stream.name: np.stack([seen[stream.name] for seen in self._seen])[None]
            for stream in self._observes
        }

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

    def _image(self, camera: str, image: Any) -> np.ndarray:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            raise ServerError(f"the image of camera '{camera}' must be a uint8 array")
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ServerError(
                f"the image of camera '{camera}' must have shape [height, width, 3], "
                f"found {list(image.shape)}"
            )
        if self._seen and self._sent[camera] != image.shape:
            raise ServerError(
                f"camera '{camera}' sent images of shape {list(self._sent[camera])}, now "
                f"{list(image.shape)}; sizes may change after a reset"
            )
        return image


def _numbers(stream: Stream, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype != np.float32 or value.shape != stream.shape:
        found = (
            f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        )
        raise ServerError(f"'{stream.name}' must be a float32 array {list(stream.shape)}, found {found}")
    if not np.isfinite(value).all():
        raise ServerError(f"'{stream.name}' is not finite: value {int((~np.isfinite(value)).argmax())}")
    return value
