"""What other libraries do to pixels, pinned by bytes: an update that changes it must not go unnoticed.

Where one of these fails after an update, features of old caches are no longer what `vla embed` would make:
give `Preprocessing.interpolation` a new name; see docs/decisions/0005.
"""

import hashlib

import numpy as np
import pytest
from fake_datasets import jpeg

from vla.embed.datasets.images import decode_image
from vla.embed.transforms import BICUBIC, ImageSize, resize


def sha(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def noise(height: int, width: int) -> np.ndarray:
    """Return an image that any change of arithmetic shows in."""
    values = (np.arange(height * width * 3, dtype=np.uint64) * 2654435761) >> 13
    return (values % 256).astype(np.uint8).reshape(height, width, 3)


@pytest.mark.parametrize(("size", "due"), [((24, 32), "4e20560abe107caf"), ((256, 256), "6b7bd1e3636a0928")])
def test_resizing_gives_the_same_bytes(size: tuple[int, int], due: str) -> None:
    assert sha(resize(noise(48, 64)[None], size)) == due


def test_bicubic_resizing_gives_the_same_bytes() -> None:
    assert sha(resize(noise(48, 64)[None], ImageSize((24, 32), BICUBIC))) == "4f6e347f74f6461c"


def test_decoding_jpeg_gives_the_same_bytes() -> None:
    assert sha(decode_image(jpeg(noise(48, 64)))) == "f1a3538e7c3f7421"
