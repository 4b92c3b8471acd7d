"""One shard: a safetensors file of consecutive frames.

    <stream>        [frames, *shape], or [frames, variants, *shape] of what an encoder wrote; images may be
                    kept as JPEG files instead, see `vla.cache.jpeg`
    episode_index   int32 [frames]   counted within the part
    frame_index     int32 [frames]   counted within the episode

The header's metadata has one entry, `shard`, a JSON object {part, first_frame, frames}. One
entry only: safetensors writes several in an order that changes from run to run, and the same frames
must give the same bytes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vla.base.errors import CacheError
from vla.base.files import sha256_of, write_atomically
from vla.cache.jpeg import ENDS, Array, JpegFrames, with_files
from vla.cache.stream import Stream

POSITIONS = ("episode_index", "frame_index")
DTYPES = {"uint8": "U8", "float16": "F16", "float32": "F32", "int32": "I32", "int64": "I64"}
"""safetensors' names."""
ANY = -1
"""A length that only the file knows."""


@dataclass(frozen=True, kw_only=True)
class ShardHeader:
    """Which frames of which part a shard holds."""

    part: str
    """In formats 1 and 2 the fingerprint of the cache, whose only part it was."""
    first_frame: int
    frames: int


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """All that a shard says of itself before a tensor is read."""

    header: ShardHeader
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    """Of each tensor its safetensors dtype and its shape."""
    jpeg: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    """Of each stream that is kept as JPEG files their quality, and the shape of what they decode to."""

    @classmethod
    def planned(cls, header: ShardHeader, streams: Sequence[Stream], variants: int) -> "ShardLayout":
        """Return the layout that a shard must have."""
        n = header.frames
        tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
        jpeg: dict[str, tuple[int, tuple[int, ...]]] = {}
        for stream in streams:
            lead = (n,) if stream.made_by is None else (n, variants)
            tensors[stream.name] = (DTYPES[stream.dtype], (*lead, *stream.shape))
            if stream.jpeg_quality is not None:
                jpeg[stream.name] = (stream.jpeg_quality, (*lead, *stream.shape))
                tensors |= {stream.name: ("U8", (ANY,)), stream.name + ENDS: ("I64", lead)}
        return cls(header=header, tensors=tensors | dict.fromkeys(POSITIONS, ("I32", (n,))), jpeg=jpeg)

    def renamed(self, names: Mapping[str, str]) -> "ShardLayout":
        """Return the same layout with other names of tensors."""
        return replace(self, tensors={names.get(name, name): what for name, what in self.tensors.items()})

    def allocate(self) -> dict[str, np.ndarray]:
        """Return arrays to be filled: of each stream as it is before it becomes files."""
        numpy_dtypes = {short: np.dtype(name) for name, short in DTYPES.items()}
        ends = {name + ENDS for name in self.jpeg}
        plain = self.tensors | {name: ("U8", shape) for name, (_, shape) in self.jpeg.items()}
        return {
            name: np.empty(shape, numpy_dtypes[dtype])
            for name, (dtype, shape) in plain.items()
            if name not in ends
        }

    def difference(self, planned: "ShardLayout") -> str | None:
        """Say in words how this layout differs from the planned one; None if it does not."""
        found, due = self.header, planned.header
        if found.part != due.part:
            return f"belongs to part {found.part}, this one is {due.part}"
        if found != due:
            return (
                f"holds {found.frames} frames from frame {found.first_frame} on, "
                f"not {due.frames} from {due.first_frame}"
            )
        for name, (dtype, shape) in planned.tensors.items():
            if name not in self.tensors:
                return f"has no tensor '{name}'"
            kind, size = self.tensors[name]
            if kind != dtype or not _fits(size, shape):
                return f"has '{name}' as {kind} {list(size)}, not {dtype} {list(shape)}"
        extra = sorted(self.tensors.keys() - planned.tensors.keys())
        return f"has a tensor '{extra[0]}' that no cache has" if extra else None


def _fits(size: tuple[int, ...], due: tuple[int, ...]) -> bool:
    return len(size) == len(due) and all(d in (ANY, n) for n, d in zip(size, due, strict=True))


def write_shard(path: Path, layout: ShardLayout, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a shard; it appears under its name only when it is complete and on disk."""
    tensors = with_files(arrays, {name: quality for name, (quality, _) in layout.jpeg.items()})
    write_atomically(path, save(tensors, metadata={"shard": json.dumps(vars(layout.header))}))


def read_layout(path: Path) -> ShardLayout:
    """Read what a shard says it holds; sizes are held against the file's before memory is taken.

    Raises:
        CacheError: it is missing, cut short, or no shard; the message starts with what it is.
    """
    if not path.is_file():
        raise CacheError("is missing")
    try:
        with safe_open(path, framework="numpy") as file:
            header = _header(json.loads(file.metadata()["shard"]))
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 not a dict
            tensors = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        # safetensors compares the sizes that its header claims with the file's.
        raise CacheError(f"is cut short or no safetensors file ({error})") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CacheError("has no entry 'shard' in its header that says what it holds") from error
    return ShardLayout(header=header, tensors=tensors)


def _header(said: dict[str, Any]) -> ShardHeader:
    part = said.pop("fingerprint") if "fingerprint" in said else said.pop("part")
    return ShardHeader(part=part, **said)


def damage(path: Path, planned: ShardLayout) -> str | None:
    """Say what is wrong with a shard, as far as its header and size tell; None if nothing is."""
    try:
        return read_layout(path).difference(planned)
    except CacheError as error:
        return str(error)


def map_shard(path: Path, planned: ShardLayout) -> dict[str, Array]:
    """Map a shard's tensors into memory; pages are read when they are touched.

    Raises:
        CacheError: the file is missing, damaged, or not the shard that was planned.
    """
    wrong = damage(path, planned)
    if wrong is None:
        try:
            with safe_open(path, framework="pt") as file:
                tensors: dict[str, Array] = {name: file.get_tensor(name) for name in planned.tensors}
            for name, (_, shape) in planned.jpeg.items():
                files, ends = tensors[name], tensors.pop(name + ENDS)
                assert isinstance(files, torch.Tensor) and isinstance(ends, torch.Tensor)
                tensors[name] = JpegFrames(files, ends, shape[ends.ndim :], path, cache_of(path))
            return tensors
        except (OSError, SafetensorError) as error:
            wrong = f"cannot be read ({error})"
    raise CacheError(f"shard {path} {wrong}", folder=cache_of(path), remedy="mend")


def cache_of(shard: Path) -> Path:
    """Return the cache of a shard: `<cache>/parts/<id>/shards/…`, before format 3 `<cache>/shards/…`."""
    part = shard.parents[1]
    return part.parents[1] if part.parent.name == "parts" else part


def not_finite(shard: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Name stream and row of the first value of each stream that is NaN or infinite.

    Args:
        shard: arrays or tensors by name.
    """
    for name, values in shard.items():
        if isinstance(values, JpegFrames):
            continue
        array = np.asarray(values)
        if array.dtype.kind != "f":
            continue
        finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if not finite.all():
            yield name, int(finite.argmin())


def wrong_checksums(shards: Sequence[tuple[Path, str]]) -> list[int]:
    """Return which of some shards, given with their SHA-256, are missing or have other bytes."""

    def is_wrong(shard: tuple[Path, str]) -> bool:
        path, due = shard
        try:
            return sha256_of(path) != due
        except OSError:
            return True

    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter lock
        return [number for number, wrong in enumerate(pool.map(is_wrong, shards)) if wrong]
