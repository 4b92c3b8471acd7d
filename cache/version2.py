"""Read the header of a cache of format 2: one part, whose shards and episodes `cache.json` listed.

Nothing is encoded, and no file is changed.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from vla.base.strict import StrictModel
from vla.cache.episodes import Episode, Episodes
from vla.cache.metadata import (
    Augmentation,
    CacheMetadata,
    DatasetIdentity,
    EncoderIdentity,
    Part,
    PositiveInt,
    Sha256,
    Statistics,
    Texts,
    digest_of,
)
from vla.cache.stream import Stream


class Shard(StrictModel):
    """One file of consecutive frames."""

    file: Annotated[str, Field(pattern=r"^shards/[0-9]{5,}\.safetensors$")]
    frames: PositiveInt
    sha256: Sha256


class Listing(StrictModel):
    """What the headers of formats 1 and 2 have in common."""

    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    augmentation: Augmentation
    num_frames: PositiveInt
    frames_per_shard: PositiveInt
    episodes: Annotated[tuple[Episode, ...], Field(min_length=1)]
    shards: tuple[Shard, ...]


class Header(Listing):
    """The whole of `cache.json`, format 2."""

    format_version: Literal[2]
    dataset: DatasetIdentity
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    encoders: dict[str, EncoderIdentity]
    statistics: dict[str, Statistics]
    texts: Texts | None = None

    def metadata(self) -> CacheMetadata:
        """Say the same in the words of format 3."""
        kept = (
            "format_version",
            "fingerprint",
            "dataset",
            "streams",
            "encoders",
            "augmentation",
            "statistics",
        )
        return CacheMetadata(
            recipe="",
            episodes=Episodes.of(self.episodes),
            parts=(the_only_part(self.fingerprint, self.num_frames, self.frames_per_shard, self.shards),),
            texts=self.texts,
            **{name: getattr(self, name) for name in kept},
        )

    def problems(self, metadata: CacheMetadata) -> Iterator[str]:
        """Say in words where the header contradicts itself."""
        due = fingerprint(metadata.dataset, metadata.streams, metadata.augmentation)
        yield from old_header_problems(self, due)


def the_only_part(fingerprint: str, frames: int, frames_per_shard: int, shards: Sequence[Shard]) -> Part:
    """Return the part that an old cache is."""
    return Part(
        id=fingerprint,
        folder=".",
        frames=frames,
        episodes=1,
        frames_per_shard=frames_per_shard,
        checksums=tuple(shard.sha256 for shard in shards),
    )


def old_header_problems(header: Listing, due_fingerprint: str) -> Iterator[str]:
    """Say in words where a header of format 1 or 2 contradicts itself, in what format 3 has no more."""
    if header.fingerprint != due_fingerprint:
        yield f"has fingerprint {header.fingerprint}, what it says of itself gives {due_fingerprint}"
    first = 0
    for episode in header.episodes:
        if episode.first_frame != first:
            yield f"starts episode {episode.index} at frame {episode.first_frame}, not {first}"
            return
        first += episode.length
    if first != header.num_frames:
        yield f"has episodes of {first} frames together, num_frames says {header.num_frames}"
    count = -(-header.num_frames // header.frames_per_shard)
    if len(header.shards) != count:
        yield f"lists {len(header.shards)} shards, {header.num_frames} frames make {count}"
        return
    for number, shard in enumerate(header.shards):
        frames = min(header.frames_per_shard, header.num_frames - number * header.frames_per_shard)
        if (shard.file, shard.frames) != (f"shards/{number:05d}.safetensors", frames):
            yield f"lists shard {number} as {shard.file} with {shard.frames} frames, not {frames}"
            return


def fingerprint(dataset: DatasetIdentity, streams: tuple[Stream, ...], augmentation: Augmentation) -> str:
    """Return the fingerprint that format 2 gave a cache; its folder is named by it."""
    return digest_of(
        {
            "format_version": 2,
            "dataset": [dataset.content_sha256, dataset.episodes, dataset.keys],
            "streams": [stream.model_dump(mode="json") for stream in streams],
            "augmentation": augmentation.model_dump(mode="json") if augmentation.variants else None,
        }
    )
