"""A part of a cache: episodes that were written together, cut into shards, and never changed.

    parts/<id>/episodes.parquet   content (32 bytes) and length of each episode; written first
               shards/00000.safetensors …
               shards.parquet     sha256 of each shard
               part.json          moments of its streams, checksums of both tables; written last

The first file makes an unfinished part known: whoever comes next goes on with it. The id follows from the
recipe and the contents, so that equal parts have equal names wherever they are made.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from vla.base.errors import CacheError
from vla.base.files import sha256_of, write_atomically
from vla.base.strict import StrictModel
from vla.cache.metadata import FORMAT_VERSION, Part, PositiveInt, Sha256, digest_of
from vla.cache.shard import ShardHeader, ShardLayout
from vla.cache.statistics import Moments
from vla.cache.stream import Stream
from vla.cache.tables import digest_rows, read_table, table_bytes

MAX_SHARD_BYTES = 256 << 20
PARTS, EPISODES, SHARDS, HEADER = "parts", "episodes.parquet", "shards.parquet", "part.json"
NOTE = "frames_per_shard"


class PartHeader(StrictModel):
    """The whole of `part.json`."""

    format_version: Literal[3]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    recipe: str
    frames: PositiveInt
    episodes: PositiveInt
    frames_per_shard: PositiveInt
    episodes_sha256: Sha256
    shards_sha256: Sha256
    moments: dict[str, Moments]
    """Of every stream but vectors of the dataset."""


@dataclass(frozen=True, kw_only=True)
class PartSpec:
    """Everything about a part that is known before its first frame is encoded."""

    recipe: str
    streams: tuple[Stream, ...]
    variants: int
    contents: tuple[bytes, ...]
    """Of its episodes, in order; no two are the same."""
    lengths: tuple[int, ...]
    """Frames of each."""
    frames_per_shard: int

    @cached_property
    def id(self) -> str:
        return digest_of([self.recipe, hashlib.sha256(b"".join(self.contents)).hexdigest()])

    @cached_property
    def part(self) -> Part:
        """What a manifest says of it."""
        return Part(
            id=self.id,
            folder=f"{PARTS}/{self.id}",
            frames=sum(self.lengths),
            episodes=len(self.lengths),
            frames_per_shard=self.frames_per_shard,
        )

    @property
    def num_frames(self) -> int:
        return self.part.frames

    @property
    def num_shards(self) -> int:
        return self.part.num_shards

    @cached_property
    def firsts(self) -> np.ndarray:
        """int64 [episodes], the first frame of each, counted within the part."""
        lengths = np.array(self.lengths, np.int64)
        return np.cumsum(lengths) - lengths

    def frame_range(self, shard: int) -> range:
        """Frames of a shard, counted within the part."""
        return self.part.frame_range(shard)

    def shards_of(self, frames: range) -> range:
        """Return which shards some of its frames lie in."""
        return range(frames.start // self.frames_per_shard, (frames.stop - 1) // self.frames_per_shard + 1)

    def episodes_of(self, frames: range) -> range:
        """Return which of its episodes some frames belong to."""
        first, last = np.searchsorted(self.firsts, [frames.start, frames.stop - 1], side="right") - 1
        return range(int(first), int(last) + 1)

    def layout(self, shard: int) -> ShardLayout:
        """Return what the file of a shard must hold."""
        frames = self.frame_range(shard)
        header = ShardHeader(part=self.id, first_frame=frames.start, frames=len(frames))
        return ShardLayout.planned(header, self.streams, self.variants)

    def positions(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Return episode, counted within the part, and frame within it, of a shard's frames; both int32."""
        frames = self.frame_range(shard)
        numbers = np.arange(frames.start, frames.stop)
        episode = np.searchsorted(self.firsts, numbers, side="right") - 1
        return episode.astype(np.int32), (numbers - self.firsts[episode]).astype(np.int32)

    def write_plan(self, cache: Path) -> None:
        """Write what an unfinished part is going to be, unless it is there."""
        path = cache / self.part.folder / EPISODES
        columns = {"content": digest_rows(self.contents), "length": np.array(self.lengths, np.int32)}
        data = table_bytes(columns, {NOTE: str(self.frames_per_shard)})
        if not path.is_file() or path.read_bytes() != data:
            write_atomically(path, data)


def fitting_frames(streams: Sequence[Stream], variants: int, shard_frames: int) -> int:
    """Return `shard_frames`, or fewer where a shard would outgrow 256 MiB (patch tokens and pixels do)."""
    one = ShardLayout.planned(ShardHeader(part="", first_frame=0, frames=1), streams, variants)
    bytes_per_frame = sum(array.nbytes for array in one.allocate().values())
    return max(1, min(shard_frames, MAX_SHARD_BYTES // bytes_per_frame))


def read_plan(folder: Path, recipe: str, streams: tuple[Stream, ...], variants: int) -> PartSpec | None:
    """Read what a part's folder is going to hold; None if it does not say, or is another recipe's."""
    try:
        table, notes = read_table(folder / EPISODES, [("content", "digest"), ("length", "int32")])
        spec = PartSpec(
            recipe=recipe,
            streams=streams,
            variants=variants,
            contents=tuple(row.tobytes() for row in table["content"]),
            lengths=tuple(table["length"].tolist()),
            frames_per_shard=int(notes[NOTE]),
        )
        good = spec.id == folder.name and min(spec.lengths, default=0) > 0 and spec.frames_per_shard > 0
    except (CacheError, KeyError, ValueError):
        return None
    return spec if good else None


def read_header(cache: Path, spec: PartSpec) -> PartHeader | None:
    """Read `part.json`; None if the part is not finished, or the file is damaged."""
    folder = cache / spec.part.folder
    try:
        header = PartHeader.model_validate(json.loads((folder / HEADER).read_bytes()))
        tables = (header.episodes_sha256, header.shards_sha256)
        if tables != (sha256_of(folder / EPISODES), sha256_of(folder / SHARDS)):
            return None
    except (OSError, ValueError, RecursionError, ValidationError):
        return None
    said = (header.id, header.recipe, header.frames, header.frames_per_shard)
    return header if said == (spec.id, spec.recipe, spec.num_frames, spec.frames_per_shard) else None


def read_checksums(cache: Path, part: Part) -> list[str]:
    """Return the SHA-256 of each shard of a part, in hexadecimal.

    Raises:
        CacheError: they cannot be read.
    """
    if part.checksums is not None:
        return list(part.checksums)
    path = cache / part.folder / SHARDS
    try:
        table, _ = read_table(path, [("sha256", "digest")])
    except CacheError as error:
        raise CacheError(f"{path} {error}", folder=cache, remedy="rewrite") from error
    if len(table["sha256"]) != part.num_shards:
        said = f"has {len(table['sha256'])} checksums for {part.num_shards} shards"
        raise CacheError(f"{path} {said}", folder=cache, remedy="rewrite")
    return [row.tobytes().hex() for row in table["sha256"]]


def header_of(spec: PartSpec, cache: Path, moments: dict[str, Moments]) -> PartHeader:
    """Say what a finished part is; its tables are there."""
    folder = cache / spec.part.folder
    return PartHeader(
        format_version=FORMAT_VERSION,
        id=spec.id,
        recipe=spec.recipe,
        frames=spec.num_frames,
        episodes=len(spec.contents),
        frames_per_shard=spec.frames_per_shard,
        episodes_sha256=sha256_of(folder / EPISODES),
        shards_sha256=sha256_of(folder / SHARDS),
        moments=moments,
    )
