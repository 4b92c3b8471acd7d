"""Frames that a shard keeps as JPEG files, where disk is short.

    <stream>        uint8 [bytes]              the files, one behind the other
    <stream>.ends   int64 [frames, variants]   where each of them ends

What is read back is what was decoded: uint8 [height, width, 3], off by the errors of the encoding. Colour has
the resolution of brightness (4:4:4): images for policies are small, and colour tells objects apart in them.

F frames, V variants, H height, W width.
"""

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vla.base.errors import CacheError
from vla.base.threads import MOST_WORKERS, usable_cores

ENDS = ".ends"
FULL_COLOUR = 0
"""Pillow's name of 4:4:4."""


def compress(frames: UInt8[np.ndarray, "F V H W 3"], quality: int) -> tuple[np.ndarray, np.ndarray]:
    """Encode frames.

    Args:
        frames: RGB.
        quality: from 1 to 100, as the JPEG library counts.

    Returns:
        The files' bytes, uint8 [bytes], and where each ends, int64 [F, V].
    """
    from PIL import Image

    def one(frame: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling=FULL_COLOUR)
        return file.getvalue()

    return joined(list(_pool().map(one, frames.reshape(-1, *frames.shape[2:]))), frames.shape[1])


def joined(files: Sequence[bytes], variants: int) -> tuple[np.ndarray, np.ndarray]:
    """Return files, those of a frame's variants side by side, as what a shard keeps of them."""
    ends = np.cumsum([len(file) for file in files], dtype=np.int64)
    return np.frombuffer(b"".join(files), np.uint8), ends.reshape(-1, variants)


class JpegFrames:
    """Frames of one stream in one shard, decoded as they are asked for.

    Args:
        files: the mapped bytes.
        ends: where each file ends.
        shape: height, width and 3.
        shard: the file that they come from, for messages.
        folder: of the cache.

    Raises:
        CacheError: the ends are not those of files that fill the bytes.
    """

    def __init__(
        self,
        files: UInt8[Tensor, "bytes"],
        ends: Int64[Tensor, "F V"],
        shape: Sequence[int],
        shard: Path,
        folder: Path,
    ) -> None:
        self.files, self._shape, self._shard, self._folder = files, tuple(shape), shard, folder
        self._lead, self._bytes = tuple(ends.shape), files.numpy()
        self._borders = np.concatenate([[0], ends.numpy().ravel()])
        if (np.diff(self._borders) <= 0).any() or self._borders[-1] != len(files):
            raise self._error("has images whose lengths are not those of its bytes")

    def __len__(self) -> int:
        return self._lead[0]

    def __getitem__(self, frames: int | slice) -> UInt8[Tensor, "*lead H W 3"]:
        """Decode some frames with all their variants: [V, H, W, 3] of one, [n, V, H, W, 3] of several."""
        places = torch.arange(len(self._borders) - 1).view(self._lead)[frames]
        return self.take(places.flatten()).view(*places.shape, *self._shape)

    def numpy(self) -> UInt8[np.ndarray, "F V H W 3"]:
        """Decode all."""
        return self[:].numpy()

    def take(self, places: Int64[Tensor, "n"]) -> UInt8[Tensor, "n H W 3"]:
        """Decode images by place: frame x V + variant.

        Raises:
            CacheError: one cannot be decoded, or has another size.
        """
        found = np.empty((len(places), *self._shape), np.uint8)

        def decode(row: int, place: int) -> None:
            found[row] = self._decoded(place)

        list(_pool().map(decode, range(len(places)), places.tolist()))
        return torch.from_numpy(found)

    def file(self, place: int) -> bytes:
        """Return the JPEG file of an image by place."""
        return self._bytes[self._borders[place] : self._borders[place + 1]].tobytes()

    def _decoded(self, place: int) -> np.ndarray:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.file(place)), formats=["JPEG"]) as image:
                size = (image.height, image.width, len(image.getbands()))
                if size != self._shape:  # before memory is taken for it
                    raise self._error(f"has an image of {' x '.join(map(str, size))}, number {place}")
                return np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise self._error(f"has a damaged image, number {place} ({error})") from error

    def _error(self, what: str) -> CacheError:
        return CacheError(f"shard {self._shard} {what}", folder=self._folder, remedy="mend")


def recompressed(images: UInt8[np.ndarray, "V H W 3"], quality: int) -> UInt8[np.ndarray, "V H W 3"]:
    """Return what images are once they were kept as JPEG files."""
    files, ends = compress(images[None], quality)
    shown = JpegFrames(torch.tensor(files), torch.from_numpy(ends), images.shape[1:], Path(), Path())
    return shown[0].numpy()


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads for both directions; Pillow lets the interpreter go on meanwhile."""
    return ThreadPoolExecutor(min(MOST_WORKERS, usable_cores()), thread_name_prefix="jpeg")


Array = Tensor | JpegFrames
"""One stream of a mapped shard."""


def picked(source: Array, places: Int64[Tensor, "n"], out: Tensor, *, variants: bool) -> None:
    """Copy rows of a stream into `out`, [n, *shape].

    Args:
        source: [F, *shape], or [F, V, *shape].
        places: rows; of a stream with variants frame x V + variant.
        out: where they go.
        variants: whether the stream has them.
    """
    if isinstance(source, JpegFrames):
        out.copy_(source.take(places))
        return
    torch.index_select(source.flatten(0, 1) if variants else source, 0, places, out=out)


def with_files(arrays: Mapping[str, np.ndarray], quality: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return the arrays of a shard with some streams as files and ends, unless they are that already."""
    out = dict(arrays)
    for name, how in quality.items():
        if name + ENDS not in out:
            out[name], out[name + ENDS] = compress(out[name], how)
    return out
