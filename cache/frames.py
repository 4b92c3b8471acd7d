"""From frame numbers to rows of shards: runs of frames, and the shards mapped as they are touched."""

import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vla.cache.episodes import Episodes
from vla.cache.jpeg import Array, JpegFrames, joined, picked
from vla.cache.metadata import CacheMetadata
from vla.cache.shard import map_shard
from vla.cache.stream import Stream


@dataclass(frozen=True)
class Runs:
    """Frames of a cache that follow one another in a part too; as few runs as there can be, in order."""

    first_frame: np.ndarray
    """int64 [runs], numbered through the cache."""
    part: np.ndarray
    first_row: np.ndarray
    """int64 [runs], counted within the part."""
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.part)


def frame_runs(episodes: Episodes, chosen: np.ndarray | None = None) -> Runs:
    """Join episodes that lie behind one another.

    Args:
        episodes: of a cache.
        chosen: bool [episodes], which to take; None takes all.
    """
    columns = (episodes.first_frame, episodes.part, episodes.first_row, episodes.length.astype(np.int64))
    first, part, row, length = (column if chosen is None else column[chosen] for column in columns)
    joined = (
        (part[1:] == part[:-1])
        & (row[1:] == row[:-1] + length[:-1])
        & (first[1:] == first[:-1] + length[:-1])
    )
    starts = np.flatnonzero(np.concatenate([[True], ~joined]))
    return Runs(first[starts], part[starts], row[starts], np.add.reduceat(length, starts))


class Frames:
    """The frames of a cache in its mapped shards.

    Args:
        folder: of the cache.
        metadata: what it says; statistics are not needed.
    """

    def __init__(self, folder: Path, metadata: CacheMetadata) -> None:
        self._folder, self._metadata = folder, metadata
        self._tensors = metadata.tensor_names
        self._mapped: dict[tuple[int, int], dict[str, Array]] = {}
        self._random = False

    @cached_property
    def runs(self) -> Runs:
        """All frames."""
        return frame_runs(self._metadata.episodes)

    def shard(self, part: int, number: int) -> dict[str, Array]:
        """Return a shard's tensors by their own names, mapped.

        Raises:
            CacheError: it is missing, damaged or not the one that was planned.
        """
        if (part, number) not in self._mapped:
            path = self._folder / self._metadata.parts[part].file(number)
            shard = map_shard(path, self._metadata.layout(part, number))
            self._mapped[part, number] = shard
            if self._random:
                _read_at_random(shard)
        return self._mapped[part, number]

    def shards(self) -> list[tuple[int, int]]:
        """Return part and number of each shard that holds frames of the cache, in their order there."""
        wanted: dict[tuple[int, int], None] = {}
        for part, first, length in zip(
            self.runs.part.tolist(), self.runs.first_row.tolist(), self.runs.length.tolist(), strict=True
        ):
            size = self._metadata.parts[part].frames_per_shard
            wanted.update(
                dict.fromkeys((part, k) for k in range(first // size, (first + length - 1) // size + 1))
            )
        return list(wanted)

    def pieces(self, name: str, runs: Runs) -> Iterator[Tensor]:
        """Yield a stream of some runs, shard by shard, [frames, (variants,) *shape], mapped or decoded."""
        for part, first, length in zip(
            runs.part.tolist(), runs.first_row.tolist(), runs.length.tolist(), strict=True
        ):
            size = self._metadata.parts[part].frames_per_shard
            for number in range(first // size, (first + length - 1) // size + 1):
                start, stop = max(first, number * size), min(first + length, (number + 1) * size)
                yield self.shard(part, number)[self._tensors[name]][
                    start - number * size : stop - number * size
                ]

    def rows(
        self, stream: Stream, frames: Int64[Tensor, "n"], variants: Int64[Tensor, "n"] | None = None
    ) -> Tensor:
        """Return a stream of frames with these numbers, in any order, [n, *shape]."""
        parts, rows = self.places(frames.numpy())
        sizes = np.array([part.frames_per_shard for part in self._metadata.parts], np.int64)[parts]
        within = rows % sizes
        if stream.made_by is not None:  # rows of all variants, one frame after the other
            within = within * self._metadata.variants + (0 if variants is None else variants.numpy())
        # Shard after shard: a large cache has a batch's rows in nearly as many of them.
        key = parts.astype(np.int64) << 32 | rows // sizes
        order = np.argsort(key, kind="stable")
        key, places = key[order], torch.from_numpy(within[order])
        borders = [0, *(np.flatnonzero(np.diff(key)) + 1).tolist(), len(key)]
        found = torch.empty((len(frames), *stream.shape), dtype=stream.torch_dtype)
        for first, stop in pairwise(borders) if len(key) else ():
            value = int(key[first])
            source = self.shard(value >> 32, value & 0xFFFFFFFF)[self._tensors[stream.name]]
            picked(source, places[first:stop], found[first:stop], variants=stream.made_by is not None)
        gathered = torch.empty_like(found)
        gathered[torch.from_numpy(order)] = found
        return gathered

    def jpeg_files(self, name: str, frames: Int64[Tensor, "n"]) -> tuple[np.ndarray, np.ndarray]:
        """Return a stream of frames with these numbers as its shards keep it, see `vla.cache.jpeg`."""
        files, variants = list[bytes](), self._metadata.variants
        for part, row in zip(*(places.tolist() for places in self.places(frames.numpy())), strict=True):
            number, within = divmod(row, self._metadata.parts[part].frames_per_shard)
            source = self.shard(part, number)[name]
            assert isinstance(source, JpegFrames)
            files += [source.file(within * variants + variant) for variant in range(variants)]
        return joined(files, variants)

    def places(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return part, and row within it, of frames with these numbers."""
        run = np.searchsorted(self.runs.first_frame, frames, side="right") - 1
        return self.runs.part[run], self.runs.first_row[run] + frames - self.runs.first_frame[run]

    def expect_random_reads(self) -> None:
        """Prepare for `rows` of frames all over the cache; reading from start to end becomes slower."""
        self._random = True
        for shard in self._mapped.values():
            _read_at_random(shard)


def _read_at_random(shard: dict[str, Array]) -> None:
    """By default every touched row of a mapped file brings its neighbours along, up to 128 KiB for 1.5."""
    if hasattr(mmap, "MADV_RANDOM"):
        for array in shard.values():
            tensor = array.files if isinstance(array, JpegFrames) else array
            advise_range(tensor.data_ptr(), tensor.nbytes, mmap.MADV_RANDOM)


def advise_range(start: int, length: int, advice: int) -> None:
    """Give advice about the pages that some addresses lie in; it may be ignored, so failing is no error."""
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    size = ctypes.c_size_t(start + length - first)
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), size, ctypes.c_int(advice))
