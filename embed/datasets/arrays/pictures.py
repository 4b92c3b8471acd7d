"""How an array holds the images of a camera, a row a frame.

pixels    uint8 [T, H, W, 3] or [T, 3, H, W], perhaps with an axis of length 1 behind T; or floats that are
          whole numbers from 0 to 255
encoded   PNG, JPEG or WebP: uint8 [T, bytes] padded with zeros, fixed-length strings [T], or
          variable-length uint8 [T]
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vla.embed.datasets.images import FrameError, decode_image

MAX_IMAGE_BYTES = 64 << 20
"""Of one encoded image."""
PICTURES = "uint8 [frames, height, width, 3] or [frames, 3, height, width], or encoded images, one a row"


def pixel_size(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, int, int] | None:
    """Return height, width and 3 of an array of pixels; None if it is none."""
    frame = tuple(int(size) for size in shape[1:])
    if len(frame) == 4 and frame[0] == 1:
        frame = frame[1:]
    if len(frame) != 3 or not (dtype == np.uint8 or dtype.kind == "f"):
        return None
    if frame[2] == 3:
        return frame[0], frame[1], 3
    return (frame[1], frame[2], 3) if frame[0] == 3 else None


def is_encoded(shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    """Tell whether an array may hold an encoded image a row."""
    padded = dtype == np.uint8 and len(shape) == 2 and shape[1] <= MAX_IMAGE_BYTES
    text = dtype.kind == "S" and len(shape) == 1 and dtype.itemsize <= MAX_IMAGE_BYTES
    described: Mapping[str, Any] = dtype.metadata or {}
    varying = described.get("vlen") == np.uint8 and len(shape) == 1  # so says h5py
    return padded or text or varying


def to_pixels(row: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Return one row of an array of pixels as an image.

    Raises:
        FrameError: it holds floats that are not whole numbers from 0 to 255.
    """
    image = row[0] if row.ndim == 4 else row
    image = image if image.shape[2] == 3 else image.transpose(1, 2, 0)
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    with np.errstate(invalid="ignore"):
        exact = image.astype(np.uint8)
    if not np.array_equal(exact, image):
        raise FrameError(
            f"is {image.dtype} from {image.min():g} to {image.max():g}; vla takes floats only where they are "
            "whole numbers from 0 to 255: store it as uint8"
        )
    return np.ascontiguousarray(exact)


def to_bytes(row: Any) -> bytes:
    """Return the bytes of an encoded image; decoders do not mind the zeros that follow it."""
    return row.tobytes() if isinstance(row, np.ndarray) else bytes(row)


def decode_row(row: Any, *, encoded: bool) -> UInt8[np.ndarray, "h w 3"]:
    """Return one row of a camera's array as an image.

    Raises:
        FrameError: it is none.
    """
    return decode_image(to_bytes(row)) if encoded else to_pixels(row)
