"""Arrays of demonstrations that are open: what they hold, checked before memory is taken, and their frames.

cameras    see `vla.embed.datasets.arrays.pictures`
numbers    [T], [T, D] or [T, N, C]: sensors, state and action; several columns may be joined (`names_of`)
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from vla.base.errors import DatasetError
from vla.base.strict import MAX_WIDTH
from vla.cache.stream import ACTION
from vla.embed.datasets.arrays.pictures import (
    PICTURES,
    decode_row,
    is_encoded,
    pixel_size,
    to_bytes,
    to_pixels,
)
from vla.embed.datasets.dataset_config import names_of
from vla.embed.datasets.images import FrameError, Picture, check_size, fit
from vla.embed.datasets.source import joined_shape

MAX_NUMBERS = 1 << 22
"""A frame of a sensor; a lidar has some 100,000 points."""


@dataclass(frozen=True)
class Contents:
    """What arrays say they hold."""

    length: int
    """Frames."""
    cameras: dict[str, tuple[int, int, int] | None]
    """Height, width and 3 of those that are not encoded."""
    shapes: dict[str, tuple[int, ...]]
    """Of one frame of each stream of numbers, by its name."""
    task: str


class Arrays(ABC):
    """Open arrays, of one episode or of all.

    Attributes:
        name: for messages.
    """

    errors: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError, TypeError, KeyError)
    """What the library raises at files that are damaged, or change under it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""

    @abstractmethod
    def array(self, key: str) -> Any:
        """Return an array: it has a shape and a dtype, and its rows can be sliced.

        Raises:
            DatasetError: there is none, or it is one that vla does not read.
        """

    @abstractmethod
    def cameras(self) -> dict[str, str]:
        """Return the keys of all cameras by name."""

    def task(self) -> str:
        """Return the text of the task; empty if there is none."""
        return ""

    def contents(self, cameras: tuple[str, ...], numbers: Mapping[str, str]) -> Contents:
        """Check what the arrays say they hold, without reading frames.

        Where all observations have one frame more than the actions, the last one, which no action follows, is
        left out.

        Args:
            cameras: those that are needed; none takes all.
            numbers: keys of sensors, state and action, by the names of their streams.

        Raises:
            DatasetError: something is missing, of another shape or absurdly large, or of another length.
        """
        stored = self.cameras()
        for camera in cameras:
            if camera not in stored:
                raise DatasetError(f"{self.name} has no camera '{camera}'; its cameras: {', '.join(stored)}")
        shapes = {name: joined_shape(self.name, key, self._frame_shape) for name, key in numbers.items()}
        views = {camera: self._image_size(camera, stored[camera]) for camera in cameras or stored}
        acts = names_of(numbers[ACTION])
        sees = [part for name, key in numbers.items() if name != ACTION for part in names_of(key)]
        sees += [stored[camera] for camera in views]
        return Contents(length=self._length(sees, acts), cameras=views, shapes=shapes, task=self.task())

    def numbers(self, key: str, frames: range) -> Float32[np.ndarray, "n ..."]:
        """Return what one column holds of some frames, or several, joined along the last axis."""
        parts = [self._rows(name, frames) for name in names_of(key)]
        columns = [part[:, None] if part.ndim == 1 else part for part in parts]
        return np.concatenate([np.asarray(column, np.float32) for column in columns], axis=-1)

    def images(
        self, key: str, frames: range, color: str, pool: ThreadPoolExecutor, size: tuple[int, int] | None
    ) -> Iterator[Picture]:
        """Yield the RGB frames of a camera.

        Args:
            key: of the camera.
            frames: rows.
            color: rgb, or bgr where red and blue are in each other's place.
            pool: threads that decode and resize.
            size: (height, width) [pixel] of the frames that come out; None leaves them as they are.

        Raises:
            DatasetError: the rows cannot be read any more.
            FrameError: a frame is no image.
        """
        rows = self._rows(key, frames)
        encoded = pixel_size(rows.shape, rows.dtype) is None

        def decode(row: Any) -> Picture:
            image = decode_row(row, encoded=encoded)
            return fit(np.ascontiguousarray(image[..., ::-1]) if color == "bgr" else image, size)

        yield from pool.map(decode, rows)

    def image_bytes(self, key: str, frames: range) -> Iterator[bytes]:
        """Yield what identifies each frame: encoded images without the zeros behind them, or pixels.

        Raises:
            FrameError: a frame is no image.
        """
        rows = self._rows(key, frames)
        for row in rows:
            if pixel_size(rows.shape, rows.dtype) is None:
                yield to_bytes(row).rstrip(b"\0")
            else:
                image = to_pixels(row)
                yield f"{image.shape}".encode() + image.tobytes()

    def _rows(self, key: str, frames: range) -> np.ndarray:
        try:
            rows = np.asarray(self.array(key)[frames.start : frames.stop])
        except self.errors as error:
            raise DatasetError(f"{self.name}: '{key}' cannot be read ({error})") from error
        if len(rows) != len(frames):
            raise DatasetError(f"{self.name}: '{key}' has become shorter while it was read")
        return rows

    def _length(self, sees: list[str], acts: tuple[str, ...]) -> int:
        """Return the frames that all columns have."""
        counts = {key: int(self.array(key).shape[0]) for key in (*sees, *acts)}
        longest = max(counts.values())
        one_more = all(counts[key] == longest - (key in acts) for key in counts)
        for key, count in counts.items():
            if not one_more and count != counts[sees[0]]:
                raise DatasetError(
                    f"{self.name}: '{key}' has {count} frames, '{sees[0]}' has {counts[sees[0]]}; mend "
                    "the file, or leave the camera or column out by naming the others"
                )
        length = longest - one_more
        if length < 1:
            raise DatasetError(f"{self.name} has no frames; remove it")
        return length

    def _frame_shape(self, key: str) -> tuple[int, ...]:
        found = self.array(key)
        shape = tuple(int(size) for size in found.shape)
        sizes_fit = len(shape) in (1, 2, 3) and all(1 <= size <= MAX_WIDTH for size in shape[1:])
        if found.dtype.kind not in "fiu" or not sizes_fit or math.prod(shape[1:]) > MAX_NUMBERS:
            raise DatasetError(
                f"{self.name}: '{key}' is {found.dtype} {list(shape)}; vla takes numbers [frames, dim], or "
                "[frames, points, channels] of a sensor"
            )
        return shape[1:] or (1,)

    def _image_size(self, camera: str, key: str) -> tuple[int, int, int] | None:
        """Return height, width and 3; None where images are encoded."""
        found = self.array(key)
        size = pixel_size(found.shape, found.dtype)
        if size is None and not is_encoded(found.shape, found.dtype):
            raise DatasetError(
                f"{self.name}: camera '{camera}' is {found.dtype} {list(found.shape)}; vla takes {PICTURES}"
            )
        if size is not None:
            try:
                check_size(size[1], size[0])
            except FrameError as error:
                raise DatasetError(f"{self.name}: camera '{camera}' {error}") from error
        return size
