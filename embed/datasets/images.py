"""Decode single images that a dataset holds as encoded bytes or pixels, and make them the encoder's size."""

import io
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from vla.base.errors import DatasetError
from vla.embed.transforms import resize

MAX_PIXELS = 64 << 20
"""Of one image. A 4K frame has 8 million; a header that claims more wants memory, not to be seen."""
# Named one by one: of all the formats that Pillow knows, some start other programs (EPS).
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")


class FrameError(Exception):
    """A frame cannot be decoded; the reader, who knows which one it is, adds its name."""


class Picture(NamedTuple):
    """A decoded frame."""

    pixels: UInt8[np.ndarray, "h w 3"]
    stored: tuple[int, ...]
    """Its shape in the dataset, before it was resized."""


def fit(image: UInt8[np.ndarray, "_h _w 3"], size: tuple[int, int] | None) -> Picture:
    """Resize a decoded frame to (height, width) [pixel]; None, or that size already, leaves it as it is.

    Called in the threads that decode, so that those of the encoder have nothing to do with it.
    """
    if size is None or image.shape[:2] == size:
        return Picture(image, image.shape)
    return Picture(resize(image[None], size)[0], image.shape)


def decode_image(data: object) -> UInt8[np.ndarray, "h w 3"]:
    """Decode PNG, JPEG or WebP bytes to RGB.

    Raises:
        FrameError: these are no such bytes, or the image is not 8-bit or too large.
    """
    if not isinstance(data, bytes):
        raise FrameError("is not stored as the bytes of an image")
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            check_size(image.width, image.height)
            if image.mode not in EIGHT_BIT_MODES:
                raise FrameError(f"is no 8-bit colour image (mode {image.mode})")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise FrameError(f"is no image in {', '.join(IMAGE_FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FrameError(f"is larger than {MAX_PIXELS >> 20} megapixels") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's PNG reader raises SyntaxError
        raise FrameError(f"is a damaged image ({error})") from error


def check_size(width: int, height: int) -> None:
    """Refuse absurd dimensions before memory is taken.

    Raises:
        FrameError: an image of that size has more than `MAX_PIXELS`, or none.
    """
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise FrameError(
            f"claims {width} x {height} pixels; vla reads images of up to {MAX_PIXELS >> 20} megapixels"
        )


def stack(
    images: Iterable[Picture], count: int, where: Callable[[int], str]
) -> UInt8[np.ndarray, "count h w 3"]:
    """Collect decoded frames of one camera, each as soon as it is there: a video's is still in cache.

    Args:
        images: the frames; may raise FrameError in place of one.
        count: how many there are.
        where: names camera, episode and frame of the k-th, for messages.

    Raises:
        DatasetError: a frame could not be decoded, or its size is not that of those before it.
    """
    stacked, done = np.empty((0, 0, 0, 3), np.uint8), 0
    first: tuple[int, ...] = ()
    try:
        for pixels, stored in images:
            if not done:
                stacked, first = np.empty((count, *pixels.shape), np.uint8), stored
            elif stored != first:
                raise FrameError(f"is {stored[:2]} pixels, those before it {first[:2]}")
            stacked[done] = pixels
            done += 1
    except FrameError as error:
        raise DatasetError(f"{where(done)} {error}") from error
    assert done == count
    return stacked
