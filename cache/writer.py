"""Plan a cache, and write one whose episodes are all new: a single part and the manifest.

writer = CacheWriter(folder, spec)
for shard in writer.missing_shards():
    writer.write(shard, arrays)        # see `vla.cache.part_writer`
writer.finish()                        # cache.json comes last

`vla embed` writes part by part instead, see `vla.embed.growth`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from vla.base.strict import StrictModel
from vla.cache.episodes import Episode, Episodes
from vla.cache.manifest import write_manifest
from vla.cache.metadata import (
    Augmentation,
    CacheMetadata,
    DatasetIdentity,
    EncoderIdentity,
    Texts,
    content_sha256_of,
    fingerprint_of,
    recipe_of,
)
from vla.cache.part import PartSpec, fitting_frames
from vla.cache.part_writer import PartWriter
from vla.cache.shard import ShardLayout
from vla.cache.stream import Stream

NOT_AUGMENTED = Augmentation()


class CacheConfig(StrictModel):
    """Where features are written and read: table `[cache]`."""

    path: str = "data/features"
    """A folder of caches, or one cache; `vla embed` makes <path>/<dataset>-<encoder>-<recipe>."""
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
    contents: tuple[bytes, ...]
    """The identity of each episode, 32 bytes."""
    shard_frames: int
    augmentation: Augmentation = NOT_AUGMENTED

    @cached_property
    def recipe(self) -> str:
        return recipe_of(self.dataset, self.streams, self.augmentation)

    @cached_property
    def fingerprint(self) -> str:
        columns = Episodes.of(self.episodes, contents=self.contents)
        return fingerprint_of(self.recipe, content_sha256_of(columns))

    @property
    def variants(self) -> int:
        """Variants of each frame, the frame itself among them."""
        return 1 + self.augmentation.variants

    @property
    def num_frames(self) -> int:
        return self.episodes[-1].first_frame + self.episodes[-1].length

    @cached_property
    def lengths(self) -> dict[bytes, int]:
        """Frames of each different episode, in order of appearance."""
        lengths: dict[bytes, int] = {}
        for content, episode in zip(self.contents, self.episodes, strict=True):
            lengths.setdefault(content, episode.length)
        return lengths

    @cached_property
    def frames_per_shard(self) -> int:
        """`shard_frames`, or fewer where a shard would outgrow 256 MiB (patch tokens and pixels do)."""
        return fitting_frames(self.streams, self.variants, self.shard_frames)

    def part_of(self, contents: tuple[bytes, ...]) -> PartSpec:
        """Return the part that some of its episodes make, each different one once."""
        return PartSpec(
            recipe=self.recipe,
            streams=self.streams,
            variants=self.variants,
            contents=contents,
            lengths=tuple(self.lengths[content] for content in contents),
            frames_per_shard=self.frames_per_shard,
        )

    @cached_property
    def part(self) -> PartSpec:
        """All of its episodes as one part."""
        return self.part_of(tuple(self.lengths))

    def numbers(self, contents: Sequence[bytes]) -> list[int]:
        """Return what the dataset calls some episodes; -1 for one that it does not have."""
        known = {c: e.index for c, e in zip(reversed(self.contents), reversed(self.episodes), strict=True)}
        return [known.get(content, -1) for content in contents]

    def write_manifest(self, folder: Path, parts: Sequence[PartSpec], texts: Texts | None) -> CacheMetadata:
        """Write `cache.json` over finished parts that hold all episodes."""
        return write_manifest(
            folder,
            parts,
            dataset=self.dataset,
            encoders=self.encoders,
            augmentation=self.augmentation,
            episodes=self.episodes,
            contents=self.contents,
            texts=texts,
        )

    @property
    def num_shards(self) -> int:
        """Of all as one part, as are the two that follow."""
        return self.part.num_shards

    def frame_range(self, shard: int) -> range:
        """Frames of a shard."""
        return self.part.frame_range(shard)

    def layout(self, shard: int) -> ShardLayout:
        """Return what the file of a shard must hold."""
        return self.part.layout(shard)


class CacheWriter:
    """Fill one cache directory with a single part; finished shards of an earlier run are kept."""

    def __init__(self, folder: Path, spec: CacheSpec) -> None:
        self.folder, self.spec = folder, spec
        self.part = PartWriter(folder, spec.part, spec.dataset.path, spec.numbers(spec.part.contents))

    def missing_shards(self) -> list[int]:
        """Shards that are not there yet, or are damaged."""
        return self.part.missing_shards()

    def allocate(self, shard: int) -> dict[str, np.ndarray]:
        """Return the arrays of a shard: streams to be filled, and the positions of its frames."""
        return self.part.allocate(shard)

    def write(self, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one shard; see `PartWriter.write`."""
        self.part.begin()
        self.part.write(shard, arrays)

    def finish(self, texts: Texts | None = None) -> CacheMetadata:
        """Finish the part and write `cache.json`.

        Args:
            texts: what `write_texts` returned.
        """
        self.part.finish()
        return self.spec.write_manifest(self.folder, [self.spec.part], texts)
