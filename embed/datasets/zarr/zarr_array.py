"""One zarr array, read by rows."""

import itertools
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from vla.base.errors import DatasetError, VlaError
from vla.embed.datasets.zarr.array_metadata import MAX_CHUNK_BYTES, read_metadata
from vla.embed.datasets.zarr.chunks import JPEGXL, PACKED_SLACK, unpack
from vla.embed.datasets.zarr.storage import Storage

UNPACK_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
    MemoryError,
    zlib.error,
)


class ZarrArray:
    """An array; its rows can be sliced.

    Args:
        storage: the files.
        name: of the array, such as `data/img`.
        pool: threads that unpack.

    Raises:
        DatasetError: there is none, or it is one that vla does not read.
    """

    def __init__(self, storage: Storage, name: str, pool: ThreadPoolExecutor) -> None:
        self._storage, self.name, self._pool = storage, name, pool
        self.metadata = read_metadata(storage, name)
        self.shape = self.metadata.shape
        self.dtype = self.metadata.numpy_dtype
        self._last: tuple[int, np.ndarray] | None = None

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return consecutive rows.

        Raises:
            DatasetError: a chunk is missing or damaged.
        """
        start, stop, _ = rows.indices(self.shape[0])
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        height = self.metadata.chunks[0]
        numbers = range(start // height, (stop - 1) // height + 1)
        slabs = list(self._pool.map(self._slab, numbers)) if len(numbers) > 1 else [self._slab(numbers[0])]
        if height > 1:  # the next rows may begin where these end
            self._last = numbers[-1], slabs[-1]
        whole = np.concatenate(slabs) if len(slabs) > 1 else slabs[0]
        return whole[start - numbers[0] * height : stop - numbers[0] * height]

    def stored_image(self, row: int) -> bytes | None:
        """Return the encoded image of a row; None where chunks are no single images."""
        codec, chunks = self.metadata.codec, self.metadata.chunks
        if codec is None or codec["id"] != JPEGXL or chunks != (1, *self.shape[1:]):
            return None
        return self._packed((row, *(0 for _ in chunks[1:])))

    def files_of(self, rows: range) -> list[str]:
        """Return the files that hold some rows, and the metadata."""
        height = self.metadata.chunks[0]
        needed = range(rows.start // height, (rows.stop - 1) // height + 1)
        return [file for number in (None, *needed) for file in self._files.get(number, ())]

    @cached_property
    def _files(self) -> dict[int | None, list[str]]:
        """All files by their number along the first axis; None are those that are no chunks."""
        found: dict[int | None, list[str]] = {}
        for file in self._storage.files(self.name):
            found.setdefault(self.metadata.first_axis(file[len(self.name) + 1 :]), []).append(file)
        return found

    def _slab(self, number: int) -> np.ndarray:
        """Return all chunks with a number along the first axis, joined along the others."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        counts = [
            -(-size // chunk) for size, chunk in zip(self.shape[1:], self.metadata.chunks[1:], strict=True)
        ]
        others = list(itertools.product(*map(range, counts)))
        if len(others) == 1 and self.metadata.chunks[1:] == self.shape[1:]:
            return self._chunk((number, *others[0]))
        shape = (self.metadata.chunks[0], *self.shape[1:])
        if (nbytes := math.prod(shape) * self.dtype.itemsize) > MAX_CHUNK_BYTES:
            raise DatasetError(
                f"{self._storage.dataset}: {self.name} has chunks of {nbytes >> 20} MiB side by side; vla "
                f"reads up to {MAX_CHUNK_BYTES >> 20}"
            )
        slab = np.empty(shape, self.dtype)
        for index in others:
            chunk = self._chunk((number, *index))
            at = [
                slice(k * size, min((k + 1) * size, whole))
                for k, size, whole in zip(index, self.metadata.chunks[1:], self.shape[1:], strict=True)
            ]
            slab[(slice(None), *at)] = chunk[(slice(None), *(slice(0, s.stop - s.start) for s in at))]
        return slab

    def _chunk(self, index: tuple[int, ...]) -> np.ndarray:
        try:
            return unpack(self._packed(index), self.metadata)
        except VlaError:
            raise
        except UNPACK_ERRORS as error:
            name = f"{self.name}/{self.metadata.file(index)}"
            raise DatasetError(
                f"{self._storage.dataset}: {name} is damaged ({type(error).__name__}: {error}); get the "
                "file again"
            ) from error

    def _packed(self, index: tuple[int, ...]) -> bytes:
        return self._storage.read(
            f"{self.name}/{self.metadata.file(index)}", 2 * self.metadata.chunk_bytes + PACKED_SLACK
        )
