"""Decode single images that a dataset holds as encoded bytes or pixels, and make them the encoder's size."""

import io
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.transforms import resize

MAX_PIXELS = 64 << 20
"""Of one image. A 4K frame has 8 million; a header that claims more wants memory, not to be seen."""
MAX_FILE_BYTES = 256 << 20
"""Of an image that is a file of its own."""
# Named one by one: of all the formats that Pillow knows, some start other programs (EPS).
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")
DEPTH_FORMATS = ("PNG", "TIFF")
DEPTH_MODES = ("I;16", "I;16B", "I;16L", "I", "F")
"""One channel of 16 bits or more."""


class FrameError(Exception):
    """A frame cannot be decoded; the reader, who knows which one it is, adds its name."""


class Picture(NamedTuple):
    """A decoded frame."""

    pixels: UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 1"]
    stored: tuple[int, ...]
    """Its shape in the dataset, before it was resized."""


def fit(image: np.ndarray, size: tuple[int, int] | None) -> Picture:
    """Resize a decoded frame to (height, width) [pixel]; None, or that size already, leaves it as it is.

    Called in the threads that decode, so that those of the encoder have nothing to do with it.
    """
    if size is None or image.shape[:2] == size:
        return Picture(image, image.shape)
    return Picture(resize(image[None], size)[0], image.shape)


def fit_alike(images: Sequence[np.ndarray], size: tuple[int, int]) -> list[Picture]:
    """Resize decoded frames of one shape together, as `fit` does each."""
    resized = resize(np.stack(images), size)
    return [Picture(pixels, image.shape) for pixels, image in zip(resized, images, strict=True)]


def decode_image(data: object) -> UInt8[np.ndarray, "h w 3"]:
    """Decode PNG, JPEG or WebP bytes to RGB, upright as its EXIF orientation says.

    Raises:
        FrameError: these are no such bytes, or the image is not 8-bit or too large.
    """

    def convert(image: Image.Image) -> np.ndarray:
        if image.mode in DEPTH_MODES:
            raise FrameError(
                f"is a depth map (mode {image.mode}), not an 8-bit colour image; leave it out of the cameras"
            )
        if image.mode not in EIGHT_BIT_MODES:
            raise FrameError(f"is no 8-bit colour image (mode {image.mode})")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))

    return _decode(data, IMAGE_FORMATS, convert)


def decode_depth(data: object) -> Float32[np.ndarray, "h w 1"]:
    """Decode a depth map, PNG or TIFF of one channel, to its values as they are stored.

    Raises:
        FrameError: these are no such bytes, or the image has colours or is too large.
    """

    def convert(image: Image.Image) -> np.ndarray:
        if image.mode not in (*DEPTH_MODES, "L"):
            raise FrameError(f"is no depth map: it has colours (mode {image.mode})")
        return np.asarray(image, np.float32)[..., None]

    return _decode(data, DEPTH_FORMATS, convert)


def _decode(
    data: object, formats: tuple[str, ...], convert: Callable[[Image.Image], np.ndarray]
) -> np.ndarray:
    if not isinstance(data, bytes):
        raise FrameError("is not stored as the bytes of an image")
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            check_size(image.width, image.height)
            return convert(image)
    except UnidentifiedImageError as error:
        raise FrameError(f"is no image in {', '.join(formats)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FrameError(f"is larger than {MAX_PIXELS >> 20} megapixels") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's PNG reader raises SyntaxError
        raise FrameError(f"is a damaged image ({error})") from error


def stored_image(folder: DatasetFolder, cell: object) -> object:
    """Return the bytes of an image as the `datasets` library stores one: them, or the name of their file.

    Args:
        folder: the dataset.
        cell: bytes, or a dictionary of `bytes` and `path`.

    Raises:
        FrameError: the file cannot be read, or is absurdly large.
    """
    if not isinstance(cell, dict):
        return cell
    path = cell.get("path")
    if cell.get("bytes") is not None or not isinstance(path, str):
        return cell.get("bytes")
    try:
        file = folder.file(path)
        if file.stat().st_size > MAX_FILE_BYTES:
            raise FrameError(f"is {path}, a file of more than {MAX_FILE_BYTES >> 20} MiB")
        return file.read_bytes()
    except OSError as error:
        raise FrameError(f"is {path}, which cannot be read ({error})") from error


def check_size(width: int, height: int) -> None:
    """Refuse absurd dimensions before memory is taken.

    Raises:
        FrameError: an image of that size has more than `MAX_PIXELS`, or none.
    """
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise FrameError(
            f"claims {width} x {height} pixels; vla reads images of up to {MAX_PIXELS >> 20} megapixels"
        )


class Sizes:
    """One size a camera, in the whole dataset: that of its first frame, wherever reading begins.

    Args:
        first: returns the shape of a camera's first frame in the dataset.
    """

    def __init__(self, first: Callable[[str], tuple[int, ...]]) -> None:
        self._first, self._due = first, dict[str, tuple[int, ...]]()

    def check(self, camera: str, shape: tuple[int, ...]) -> None:
        """Hold a frame against the first.

        Raises:
            FrameError: it has another size.
        """
        if camera not in self._due:
            self._due[camera] = self._first(camera)
        if (due := self._due[camera]) != shape:
            raise FrameError(
                f"is {shape[0]} x {shape[1]} pixels (height x width), the first one {due[0]} x {due[1]}; "
                "take the episodes of one size: --set dataset.episodes=[…]"
            )


def stack(
    images: Iterable[Picture],
    count: int,
    where: Callable[[int], str],
    check: Callable[[tuple[int, ...]], None] = lambda shape: None,
) -> UInt8[np.ndarray, "count h w 3"] | Float32[np.ndarray, "count h w 1"]:
    """Collect decoded frames of one camera, each as soon as it is there: a video's is still in cache.

    Args:
        images: the frames; may raise FrameError in place of one.
        count: how many there are.
        where: names camera, episode and frame of the k-th, for messages.
        check: raises FrameError where the shape of a frame, as it is stored, is not the camera's.

    Raises:
        DatasetError: a frame could not be decoded, or its size is not the camera's.
    """
    stacked, done = np.empty((0, 0, 0, 3), np.uint8), 0
    try:
        for pixels, stored in images:
            check(stored)
            if not done:
                stacked = np.empty((count, *pixels.shape), pixels.dtype)
            stacked[done] = pixels
            done += 1
    except FrameError as error:
        raise DatasetError(f"{where(done)} {error}") from error
    assert done == count
    return stacked
