"""The encode loop: every frame of every camera through the frozen encoder, once.

    FrameSource.read ─> augment ──(a thread, some blocks ahead)──> FrozenEncoder.encode_into
     decode, resize                                                 several passes at a time │
     (its own threads)                                              (vla.base.threads)       │
            │ state, action, sensors                                                         │
            └──────────> the arrays of a shard, from CacheWriter.allocate <──────────────────┘
                            │ CacheWriter.write, when the last pass has ended
                            shards/00000.safetensors

Blocks are cut from the start of each shard, so a shard's bytes do not depend on where an earlier run was
interrupted.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla.base.distributed import World
from vla.base.errors import DatasetError, EncoderError
from vla.base.files import write_atomically
from vla.base.interrupt import Signals, deferred
from vla.base.lock import exclusive
from vla.base.prefetch import prefetch
from vla.base.progress import Progress
from vla.base.threads import compute_threads, num_workers
from vla.cache import (
    Augmentation,
    CacheConfig,
    CacheSpec,
    CacheWriter,
    DatasetIdentity,
    Texts,
)
from vla.embed.batch_size import block_frames, for_large_batches, settle_batch_size
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.content import FileWatch
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.encoders.encoder import EncoderConfig
from vla.embed.format_1 import cache_of_format_1, copy_cache
from vla.embed.frozen_encoder import FrozenEncoder, Views
from vla.embed.resting import say_what_rests
from vla.embed.tasks import embed_tasks
from vla.embed.transforms import augment

FRAMES_AHEAD = 128
"""Frames that wait for the encoder, of all variants together; 75 MB of three cameras at 256 x 256. The
decoder is a block or two further."""


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What `embed` did."""

    cache: str
    """The cache directory."""
    fingerprint: str
    frames: int
    cameras: tuple[str, ...]
    streams: tuple[str, ...]
    """All that the cache holds, by name."""
    shards: int
    shards_encoded: int
    """Shards of this run; the others were there already."""
    encoder: str
    seconds: float
    images_per_s: float
    """Of this run; 0 if there was nothing to do."""
    texts: int
    """Different task texts whose features the cache has; 0 without language."""


def embed(
    dataset: DatasetConfig,
    encoder: EncoderConfig,
    cache: CacheConfig,
    augmentation: Augmentation | None = None,
    notes: Mapping[str, bytes] | None = None,
) -> EmbedReport:
    """Encode a dataset into a feature cache below `cache.path`, or finish one that was interrupted.

    A finished cache of format 1 that holds the same is left as it is, and named.

    Args:
        dataset: the demonstrations.
        encoder: made of what, and where it runs.
        cache: where it goes.
        augmentation: further variants of each frame; None is none.
        notes: further files of the cache, by name.

    Raises:
        DatasetError: the demonstrations cannot be read, or change while they are.
        EncoderError: the encoder cannot be loaded, or has no text tower where language is on.
        CacheError: features are not finite.
        VlaError: another process is writing the same cache.
        Interrupted: a signal came; the shard at work was finished first.
    """
    started = time.monotonic()
    with World.join() as world, deferred() as signals:
        source = open_source(dataset, encoder.workers)
        files = source.watch()  # before they are hashed: whatever changes from here on is noticed
        frozen = FrozenEncoder.load(for_large_batches(encoder), source.camera_names)
        identity = world.broadcast(source.identity() if world.is_main else None)
        spec = plan_cache(source, identity, frozen, cache, augmentation or Augmentation())
        name = f"{Path(dataset.path).resolve().name}-{Path(encoder.id).name}"
        folder = Path(cache.path) / f"{name}-{spec.fingerprint}"
        (earlier,) = world.broadcast((cache_of_format_1(folder.parent, spec),) if world.is_main else None)
        missing: Sequence[int] = ()
        if earlier is not None and (earlier.metadata.texts is not None or not encoder.language):
            folder, texts = earlier.folder, earlier.metadata.texts
        else:
            writer = CacheWriter(folder, spec)
            with exclusive(folder) if world.is_main else nullcontext():
                if world.is_main:
                    writer.remove_leftovers()
                # Before the frames: a checkpoint without text tower is found out before hours of work.
                texts = embed_tasks(encoder, writer) if world.is_main and encoder.language else None
                if world.is_main and earlier is not None:
                    copy_cache(earlier, writer)  # it lacks texts, and cannot be given any
                missing = world.broadcast(writer.missing_shards() if world.is_main else None)
                frozen.batch_size = world.broadcast(
                    settle_batch_size(frozen, encoder, spec, folder) if world.is_main else None
                )
                # A run of neighbouring shards each: files are then read in order, mostly by one rank.
                mine = world.share(missing)
                encode_shards(source, frozen, writer, mine, files, signals, quiet=not world.is_main)
                world.barrier()
                if world.is_main:
                    _finish(writer, texts, notes or {}, changed=bool(missing))
        if world.is_main:
            say_what_rests(folder)
    seconds = time.monotonic() - started
    images = sum(len(spec.frame_range(shard)) for shard in missing) * len(frozen.reads) * spec.variants
    return EmbedReport(
        cache=str(folder),
        fingerprint=folder.name.rpartition("-")[2],
        frames=spec.num_frames,
        cameras=frozen.reads,
        streams=tuple(stream.name for stream in spec.streams),
        shards=spec.num_shards,
        shards_encoded=len(missing),
        encoder=frozen.identity.describe(),
        seconds=round(seconds, 3),
        images_per_s=round(images / seconds, 1),
        texts=len(texts.tasks) if texts else 0,
    )


def plan_cache(
    source: FrameSource,
    dataset: DatasetIdentity,
    encoder: FrozenEncoder,
    cache: CacheConfig,
    augmentation: Augmentation,
) -> CacheSpec:
    """Say what a cache is going to hold; its fingerprint follows from that.

    Raises:
        EncoderError: the encoder writes a stream that is called as one of the dataset.
    """
    kept = tuple(stream for stream in source.streams if stream.kind != "image")
    if taken := {stream.name for stream in encoder.writes} & {stream.name for stream in kept}:
        raise EncoderError(
            f"encoder {encoder.identity.type} writes stream '{min(taken)}', the dataset has one of that name "
            "too; call the sensor otherwise: dataset.streams"
        )
    return CacheSpec(
        dataset=dataset,
        streams=(*encoder.writes, *kept),
        encoders={encoder.identity.digest: encoder.identity},
        episodes=source.episodes,
        shard_frames=cache.shard_frames,
        augmentation=augmentation,
    )


@dataclass(frozen=True, kw_only=True)
class Block:
    """Frames on their way to the encoder, with the places where their results go."""

    shard: int
    arrays: dict[str, np.ndarray]
    """Of the shard; what needs no encoder is filled in."""
    rows: range
    """Of the shard."""
    variants: Sequence[Views]
    """The frames themselves and their augmented variants, at the encoder's size."""

    @property
    def here(self) -> slice:
        return slice(self.rows.start, self.rows.stop)


def encode_shards(
    source: FrameSource,
    encoder: FrozenEncoder,
    writer: CacheWriter,
    shards: Sequence[int],
    files: FileWatch,
    signals: Signals,
    *,
    quiet: bool = False,
) -> None:
    """Encode and write the given shards, decoding ahead of the encoder across shard borders.

    Args:
        source: the demonstrations.
        encoder: the frozen encoder; called from several threads.
        writer: of the cache.
        shards: numbers of those to encode.
        files: the dataset's; no shard is written once one of them has changed.
        signals: looked at between shards.
        quiet: show no progress.
    """
    spec, workers, written = writer.spec, num_workers(encoder.device), [s.name for s in encoder.writes]
    size = block_frames(encoder.batch_size, len(encoder.reads))
    blocks = prefetch(
        _blocks(source, encoder, writer, shards, size), max(2, FRAMES_AHEAD // (size * spec.variants))
    )
    begun: deque[tuple[Block, list[Future[None]]]] = deque()
    done = 0
    total = sum(len(spec.frame_range(shard)) for shard in shards)
    signals.stop_if_asked("nothing is encoded yet")

    def finish(block: Block, passes: list[Future[None]]) -> None:
        nonlocal done
        for encoded in passes:
            encoded.result()
        progress.update(len(block.rows))
        if block.rows.stop == len(spec.frame_range(block.shard)):
            files.require_unchanged()
            writer.write(block.shard, block.arrays)
            done += 1
            signals.stop_if_asked(f"{done} shards of this run are kept, and all before it")

    with (
        Progress("embed", total, unit="frames", quiet=quiet) as progress,
        compute_threads(encoder.device, workers) as pool,
    ):
        try:
            for block in blocks:
                passes = []
                whole = dict.fromkeys(encoder.reads, range(len(block.rows)))
                for variant, views in enumerate(block.variants):
                    out = {name: block.arrays[name][block.here, variant] for name in written}
                    passes += [
                        pool.submit(encoder.encode_into, views, rows, out) for rows in encoder.passes(whole)
                    ]
                begun.append((block, passes))
                # Enough to do for all while the oldest is waited for.
                while sum(len(later) for _, later in list(begun)[1:]) >= workers:
                    finish(*begun.popleft())
            while begun:
                finish(*begun.popleft())
        except DatasetError:
            files.require_unchanged()  # if a file has changed, that is what is wrong
            raise


def _blocks(
    source: FrameSource, encoder: FrozenEncoder, writer: CacheWriter, shards: Sequence[int], size: int
) -> Iterator[Block]:
    """Decode and prepare frames, shard after shard; they come at the encoder's size."""
    spec, image_size = writer.spec, encoder.encoder.image_size
    for shard in shards:
        arrays, first = writer.allocate(shard), 0
        for block in source.read(spec.frame_range(shard), size, image_size):
            rows = range(first, first + len(block))
            for stream in spec.streams:
                if stream.made_by is None:
                    arrays[stream.name][rows.start : rows.stop] = block.streams[stream.name]
            views = {name: block.streams[name] for name in encoder.reads}
            variants = [
                {
                    camera: augment(frames, block.episode_index, camera, variant, spec.augmentation)
                    for camera, frames in views.items()
                }
                for variant in range(spec.variants)
            ]
            yield Block(shard=shard, arrays=arrays, rows=rows, variants=variants)
            first = rows.stop


def _finish(writer: CacheWriter, texts: Texts | None, notes: Mapping[str, bytes], *, changed: bool) -> None:
    if changed or writer.finished() is None:
        writer.finish(texts)
    elif texts is not None:
        writer.add_texts(texts)
    for file, data in notes.items():
        write_atomically(writer.folder / file, data)
