"""What `vla embed` says of its work."""

from dataclasses import dataclass
from pathlib import Path

from vla.cache import CacheMetadata, CacheSpec, FeatureCache, Texts
from vla.cache.shard import ShardHeader, ShardLayout
from vla.embed.frozen_encoder import FrozenEncoder
from vla.embed.growth import Growth
from vla.embed.tasks import NewTexts


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What `embed` did, or would do."""

    cache: str
    """The cache directory."""
    fingerprint: str
    episodes: int
    frames: int
    cameras: tuple[str, ...]
    streams: tuple[str, ...]
    """All that the cache holds, by name."""
    parts: int
    shards: int
    shards_encoded: int = 0
    """Shards of this run; the others were there already."""
    episodes_new: int = 0
    """Episodes that were in no part; the same one twice counts once."""
    episodes_kept: int
    episodes_dropped: int = 0
    """Episodes that the cache had and the dataset has no more; their features stay in their parts."""
    frames_encoded: int = 0
    images_encoded: int = 0
    hours_encoded: float = 0.0
    """Of demonstrations."""
    mib_encoded: float = 0.0
    """Of shards that are written; of JPEG files a dry run knows only the most that it can be."""
    encoder: str
    seconds: float
    images_per_s: float = 0.0
    """Of this run; 0 if there was nothing to do."""
    texts: int
    """Different task texts whose features the cache has; 0 without language."""
    dry_run: bool
    """Nothing was encoded or written: the figures say what would be."""


def report_of_earlier(
    cache: FeatureCache, encoder: FrozenEncoder, seconds: float, *, dry_run: bool
) -> EmbedReport:
    """Report a cache of an earlier format that holds what was asked for."""
    made = cache.metadata
    return EmbedReport(
        cache=str(cache.folder),
        fingerprint=made.fingerprint,
        episodes=len(made.episodes),
        frames=made.num_frames,
        cameras=encoder.reads,
        streams=tuple(stream.name for stream in made.streams),
        parts=len(made.parts),
        shards=sum(part.num_shards for part in made.parts),
        episodes_kept=len(made.episodes),
        encoder=encoder.identity.describe(),
        seconds=round(seconds, 3),
        texts=len(made.texts.tasks) if made.texts else 0,
        dry_run=dry_run,
    )


def report_of(
    folder: Path,
    spec: CacheSpec,
    encoder: FrozenEncoder,
    growth: Growth,
    before: CacheMetadata | None,
    texts: Texts | NewTexts | None,
    seconds: float,
    *,
    dry_run: bool,
) -> EmbedReport:
    """Report what was made, or would be.

    Args:
        folder: of the cache.
        spec: what it holds.
        encoder: that was asked for.
        growth: what was new.
        before: what the cache said of itself until then; None if there was none.
        texts: of the tasks, if there are any.
        seconds: that it took.
        dry_run: nothing was made.
    """
    listed = {row.tobytes() for row in before.episodes.content} if before else set()
    images = growth.frames * len(encoder.reads) * spec.variants
    one = ShardLayout.planned(ShardHeader(part="", first_frame=0, frames=1), spec.streams, spec.variants)
    size = growth.frames * sum(array.nbytes for array in one.allocate().values())
    if one.jpeg and not dry_run:
        files = (folder / growth.parts[part].part.file(shard) for part, shard in growth.missing)
        size = sum(file.stat().st_size for file in files)
    return EmbedReport(
        cache=str(folder),
        fingerprint=spec.fingerprint,
        episodes=len(spec.episodes),
        frames=spec.num_frames,
        cameras=encoder.reads,
        streams=tuple(stream.name for stream in spec.streams),
        parts=len(growth.parts),
        shards=sum(part.num_shards for part in growth.parts),
        shards_encoded=len(growth.missing),
        episodes_new=growth.new,
        episodes_kept=len(spec.lengths) - growth.new,
        episodes_dropped=len(listed - spec.lengths.keys()),
        frames_encoded=growth.frames,
        images_encoded=images,
        hours_encoded=round(growth.frames / spec.dataset.fps / 3600, 4),
        mib_encoded=round(size / 2**20, 3),
        encoder=encoder.identity.describe(),
        seconds=round(seconds, 3),
        images_per_s=0.0 if dry_run else round(images / seconds, 1),
        texts=len(texts.tasks) if texts else 0,
        dry_run=dry_run,
    )
