"""Write a feature cache shard by shard, so that interrupted work goes on where it stopped.

writer = CacheWriter(folder, spec)
for shard in writer.missing_shards():
    arrays = writer.allocate(shard)    # of frames spec.frame_range(shard); positions are filled in
    ...                                # fill arrays[stream]
    writer.write(shard, arrays)
writer.finish()                        # statistics and checksums; cache.json comes last
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from vla.base.errors import CacheError
from vla.base.files import remove_leftovers, sha256_of, write_json
from vla.base.strict import StrictModel
from vla.cache.episodes import Episode, positions
from vla.cache.metadata import (
    FORMAT_VERSION,
    Augmentation,
    CacheMetadata,
    DatasetIdentity,
    EncoderIdentity,
    Shard,
    Texts,
    fingerprint,
)
from vla.cache.reader import checksum_damage, read_metadata
from vla.cache.shard import (
    POSITIONS,
    ShardHeader,
    ShardLayout,
    damage,
    map_shard,
    not_finite,
    write_shard,
)
from vla.cache.statistics import stream_statistics
from vla.cache.stream import Stream

MAX_SHARD_BYTES = 256 << 20
NOT_AUGMENTED = Augmentation()


class CacheConfig(StrictModel):
    """Where features are written and read: table `[cache]`."""

    path: str = "data/features"
    """A folder of caches, or one cache; `vla embed` makes <path>/<dataset>-<encoder>-<fingerprint>."""
    shard_frames: Annotated[int, Field(ge=1)] = 4096
    """Frames a shard at most; an interrupted run redoes at most one shard."""


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Everything about a cache that is known before the first frame is encoded."""

    dataset: DatasetIdentity
    streams: tuple[Stream, ...]
    """What encoders write, sensors, state, action."""
    encoders: Mapping[str, EncoderIdentity]
    """By their digests."""
    episodes: tuple[Episode, ...]
    shard_frames: int
    augmentation: Augmentation = NOT_AUGMENTED

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.dataset, self.streams, self.augmentation)

    @property
    def variants(self) -> int:
        """Variants of each frame, the frame itself among them."""
        return 1 + self.augmentation.variants

    @property
    def num_frames(self) -> int:
        return self.episodes[-1].first_frame + self.episodes[-1].length

    @cached_property
    def frames_per_shard(self) -> int:
        """`shard_frames`, or fewer where a shard would outgrow 256 MiB (patch tokens and pixels do)."""
        bytes_per_frame = sum(array.nbytes for array in self._layout(0, 1).allocate().values())
        return max(1, min(self.shard_frames, MAX_SHARD_BYTES // bytes_per_frame))

    @property
    def num_shards(self) -> int:
        return -(-self.num_frames // self.frames_per_shard)

    def frame_range(self, shard: int) -> range:
        """Frames of a shard."""
        first = shard * self.frames_per_shard
        return range(first, min(first + self.frames_per_shard, self.num_frames))

    def layout(self, shard: int) -> ShardLayout:
        """Return what the file of a shard must hold."""
        frames = self.frame_range(shard)
        return self._layout(frames.start, len(frames))

    def _layout(self, first: int, frames: int) -> ShardLayout:
        header = ShardHeader(fingerprint=self.fingerprint, first_frame=first, frames=frames)
        return ShardLayout.planned(header, self.streams, self.variants)


class CacheWriter:
    """Fill one cache directory; finished shards of an earlier run are kept."""

    def __init__(self, folder: Path, spec: CacheSpec) -> None:
        self.folder, self.spec = folder, spec

    def remove_leftovers(self) -> None:
        """Delete half-written files of killed processes; only whoever holds the folder's lock may."""
        remove_leftovers(self.folder)
        remove_leftovers(self.folder / "shards")

    def missing_shards(self) -> list[int]:
        """Shards that are not there yet, or are damaged.

        Headers and sizes are held against the plan. Once `cache.json` is there it has a checksum of every
        shard, and all bytes are held against it: reading a cache is little beside reading its dataset,
        which `embed` does as well.
        """
        planned = range(self.spec.num_shards)
        wrong = {k for k in planned if damage(self._path(k), self.spec.layout(k)) is not None}
        finished = self.finished()
        if finished is not None:
            wrong |= set(checksum_damage(self.folder, finished, [k for k in planned if k not in wrong]))
        return sorted(wrong)

    def finished(self) -> CacheMetadata | None:
        """Return the contents of `cache.json` if it is there, can be read and is this cache's."""
        try:
            found = read_metadata(self.folder)
        except CacheError:
            return None
        frames = [len(self.spec.frame_range(shard)) for shard in range(self.spec.num_shards)]
        same = found.fingerprint == self.spec.fingerprint and [s.frames for s in found.shards] == frames
        return found if same else None

    def allocate(self, shard: int) -> dict[str, np.ndarray]:
        """Return the arrays of a shard: streams to be filled, and the positions of its frames."""
        arrays = self.spec.layout(shard).allocate()
        places = positions(self.spec.episodes, self.spec.frame_range(shard))
        return arrays | dict(zip(POSITIONS, places, strict=True))

    def write(self, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one shard.

        Args:
            shard: its number.
            arrays: those of `allocate`, filled.

        Raises:
            CacheError: a value is NaN or infinite; nothing is written.
        """
        for name, episode, frame in not_finite(arrays):
            raise CacheError(
                f"{self.spec.dataset.path}: '{name}' is not finite at episode {episode}, frame {frame}",
                folder=self.folder,
                remedy="not finite",
            )
        write_shard(self._path(shard), self.spec.layout(shard).header, arrays)

    def finish(self, texts: Texts | None = None) -> CacheMetadata:
        """Compute checksums and statistics of the finished shards and write `cache.json`.

        Args:
            texts: what `write_texts` returned; None keeps what there was.
        """
        spec, before = self.spec, self.finished()
        paths = [self._path(shard) for shard in range(spec.num_shards)]
        mapped = [map_shard(path, spec.layout(k)) for k, path in enumerate(paths)]
        metadata = CacheMetadata(
            format_version=FORMAT_VERSION,
            fingerprint=spec.fingerprint,
            dataset=spec.dataset,
            streams=spec.streams,
            encoders=dict(spec.encoders),
            augmentation=spec.augmentation,
            num_frames=spec.num_frames,
            frames_per_shard=spec.frames_per_shard,
            episodes=spec.episodes,
            statistics={
                stream.name: stream_statistics(stream, [shard[stream.name].numpy() for shard in mapped])
                for stream in spec.streams
            },
            shards=tuple(
                Shard(file=f"shards/{path.name}", frames=len(spec.frame_range(i)), sha256=sha256_of(path))
                for i, path in enumerate(paths)
            ),
            texts=texts or (before.texts if before else None),
        )
        if before != metadata:
            write_json(self.folder / "cache.json", metadata.to_json())
        return metadata

    def add_texts(self, texts: Texts) -> None:
        """Note in the `cache.json` of a finished cache what `write_texts` returned."""
        finished = self.finished()
        if finished is not None and finished.texts != texts:
            metadata = finished.model_copy(update={"texts": texts})
            write_json(self.folder / "cache.json", metadata.to_json())

    def _path(self, shard: int) -> Path:
        return self.folder / "shards" / f"{shard:05d}.safetensors"
