"""One HDF5 episode: what it holds, checked before memory is taken, and its frames.

observations/images/<camera>   uint8 [T, H, W, 3]; or one encoded image a row: uint8 [T, bytes] padded
                               with zeros, fixed-length strings [T], or variable-length uint8 [T]
observations/qpos              float [T, S]
action                         float [T, A]
anything else, where named     numbers [T, D] or [T, N, C]: sensors
attributes of the file         task text under one of TASK_ATTRIBUTES, if there is any
"""

import math
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from vla.base.errors import DatasetError
from vla.base.strict import MAX_WIDTH
from vla.cache.stream import STATE
from vla.embed.datasets.hdf5.opening import get_dataset, get_group, open_file
from vla.embed.datasets.images import FrameError, Picture, check_size, decode_image, fit

IMAGES = "observations/images"
TASK_ATTRIBUTES = ("task", "language_instruction", "instruction")
MAX_TASK_BYTES = 64 << 10
MAX_IMAGE_BYTES = 64 << 20
"""Of one encoded image."""
MAX_NUMBERS = 1 << 22
"""A frame of a sensor; a lidar has some 100,000 points."""
# What h5py raises at files that are damaged, or change under it.
HDF5_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError)


@dataclass(frozen=True)
class EpisodeContents:
    """What an episode file says it holds."""

    length: int
    cameras: dict[str, tuple[int, ...] | None]
    """Height, width and 3 of those that are not encoded."""
    shapes: dict[str, tuple[int, ...]]
    """Of one frame of each stream of numbers, by its name."""
    task: str


class Hdf5Episode:
    """An open episode file; a context manager.

    Raises:
        DatasetError: it is no HDF5 file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_file(path)
        # At the latest before Python ends: libhdf5 crashes where it ends with files open that Python reads.
        self._finish = weakref.finalize(self, self._file.close)

    def __enter__(self) -> "Hdf5Episode":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._finish()

    def contents(self, cameras: tuple[str, ...], numbers: Mapping[str, str]) -> EpisodeContents:
        """Check what the file says it holds, without reading frames.

        Args:
            cameras: those that are needed; none takes all.
            numbers: datasets of sensors, state and action, by the names of their streams.

        Raises:
            DatasetError: something is missing, of another shape or absurdly large, or of another length.
        """
        images = get_group(self._file, IMAGES)
        stored = tuple(images) if images is not None else ()
        if not stored:
            raise DatasetError(f"{self.path} has no cameras below {IMAGES}; nothing to embed")
        for camera in cameras:
            if camera not in stored:
                raise DatasetError(f"{self.path} has no camera '{camera}'; its cameras: {', '.join(stored)}")
        first = numbers[STATE]
        arrays = {name: self._shape(key) for name, key in numbers.items()}
        views = {camera: self._image_shape(camera) for camera in cameras or stored}
        length = arrays[STATE][0]
        counts = {numbers[name]: shape[0] for name, shape in arrays.items()}
        counts |= {f"{IMAGES}/{camera}": shape[0] for camera, shape in views.items()}
        for key, count in counts.items():
            if count != length:
                raise DatasetError(f"{self.path}: '{key}' has {count} frames, '{first}' has {length}")
        if length < 1:
            raise DatasetError(f"{self.path} has no frames; remove it")
        return EpisodeContents(
            length=length,
            cameras={camera: shape[1:] if len(shape) == 4 else None for camera, shape in views.items()},
            shapes={name: shape[1:] for name, shape in arrays.items()},
            task=self._task(),
        )

    def numbers(self, key: str, frames: range) -> Float32[np.ndarray, "n ..."]:
        """Return what a dataset holds of some frames."""
        return np.asarray(self._rows(key, frames), dtype=np.float32)

    def images(
        self,
        camera: str,
        frames: range,
        color: str,
        pool: ThreadPoolExecutor,
        size: tuple[int, int] | None,
    ) -> Iterator[Picture]:
        """Yield the RGB frames of a camera.

        Args:
            camera: its name.
            frames: numbers within the episode.
            color: rgb, or bgr where the file has red and blue in each other's place.
            pool: threads that decode and resize.
            size: (height, width) [pixel] of the frames that come out; None leaves them as they are.

        Raises:
            DatasetError: the file cannot be read any more.
            FrameError: a frame is no image.
        """
        rows = self._rows(f"{IMAGES}/{camera}", frames)
        encoded = rows.ndim != 4

        def decode(row: Any) -> Picture:
            image = decode_image(_encoded(row)) if encoded else row
            return fit(np.ascontiguousarray(image[..., ::-1]) if color == "bgr" else image, size)

        yield from pool.map(decode, rows)

    def image_bytes(self, camera: str, frames: range) -> Iterator[bytes]:
        """Yield what is stored of each frame: encoded images without the zeros behind them, or pixels."""
        rows = self._rows(f"{IMAGES}/{camera}", frames)
        for row in rows:
            yield f"{row.shape}".encode() + row.tobytes() if rows.ndim == 4 else _encoded(row).rstrip(b"\0")

    def _rows(self, key: str, frames: range) -> np.ndarray:
        try:
            rows = np.asarray(get_dataset(self._file, key)[frames.start : frames.stop])
        except HDF5_ERRORS as error:
            raise DatasetError(f"{self.path}: '{key}' cannot be read ({error})") from error
        if len(rows) != len(frames):
            raise DatasetError(f"{self.path}: '{key}' has become shorter while it was read")
        return rows

    def _shape(self, key: str) -> tuple[int, ...]:
        found = get_dataset(self._file, key)
        shape = tuple(int(size) for size in found.shape)
        sizes_fit = len(shape) in (2, 3) and all(1 <= size <= MAX_WIDTH for size in shape[1:])
        if found.dtype.kind not in "fiu" or not sizes_fit or math.prod(shape[1:]) > MAX_NUMBERS:
            raise DatasetError(
                f"{self.path}: '{key}' is {found.dtype} {list(shape)}; vla takes numbers [frames, dim], or "
                "[frames, points, channels] of a sensor"
            )
        return shape

    def _image_shape(self, camera: str) -> tuple[int, ...]:
        """Return frames, and height, width and 3 where they are not encoded."""
        import h5py

        found = get_dataset(self._file, f"{IMAGES}/{camera}")
        shape, kind = found.shape, found.dtype
        raw = kind == np.uint8 and len(shape) == 4 and shape[3] == 3
        padded = kind == np.uint8 and len(shape) == 2 and shape[1] <= MAX_IMAGE_BYTES
        text = kind.kind == "S" and len(shape) == 1 and kind.itemsize <= MAX_IMAGE_BYTES
        varying = h5py.check_vlen_dtype(kind) == np.uint8 and len(shape) == 1
        if not (raw or padded or text or varying):
            raise DatasetError(
                f"{self.path}: camera '{camera}' is {kind} {list(shape)}; vla takes uint8 [frames, height, "
                "width, 3], or encoded images, one a row"
            )
        if raw:
            try:
                check_size(shape[2], shape[1])
            except FrameError as error:
                raise DatasetError(f"{self.path}: camera '{camera}' {error}") from error
        return tuple(int(size) for size in (shape if raw else shape[:1]))

    def _task(self) -> str:
        for name in TASK_ATTRIBUTES:
            try:
                if name not in self._file.attrs:
                    continue
                stored = self._file.attrs.get_id(name)
                if stored.shape != () or stored.get_storage_size() > MAX_TASK_BYTES:
                    continue
                value = self._file.attrs[name]
            except HDF5_ERRORS as error:
                raise DatasetError(f"{self.path}: attribute '{name}' cannot be read ({error})") from error
            if isinstance(value, str | bytes):
                return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return ""


def _encoded(row: Any) -> bytes:
    """Return the bytes of an encoded image; decoders do not mind the zeros that follow it."""
    return row.tobytes() if isinstance(row, np.ndarray) else bytes(row)
