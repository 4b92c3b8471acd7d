"""The encode loop: every frame of every camera through the frozen encoder, once.

FrameSource ─> FrozenEncoder ─> Frames ──> CacheWriter
vla.embed.pipeline                         a shard at a time
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla.base.distributed import World
from vla.base.errors import DatasetError
from vla.base.files import write_atomically
from vla.base.interrupt import Signals, deferred
from vla.base.lock import exclusive
from vla.base.progress import Progress
from vla.cache import Augmentation, CacheConfig, CacheSpec, CacheWriter, DatasetIdentity, Frames
from vla.embed.batch_size import settle_batch_size
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.watch import FileWatch
from vla.embed.encoder import FrozenEncoder
from vla.embed.encoders.encoder_config import EncoderConfig
from vla.embed.pipeline import encode_frames
from vla.embed.tasks import embed_tasks


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What `embed` did."""

    cache: str
    """The cache directory."""
    fingerprint: str
    frames: int
    cameras: tuple[str, ...]
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
        frozen = FrozenEncoder.load(for_large_batches(encoder))
        identity = world.broadcast(source.identity() if world.is_main else None)
        spec = plan_cache(source, identity, frozen, cache, augmentation or Augmentation())
        name = f"{Path(dataset.path).resolve().name}-{Path(encoder.id).name}-{spec.fingerprint}"
        folder = Path(cache.path) / name
        writer = CacheWriter(folder, spec)
        with exclusive(folder) if world.is_main else nullcontext():
            if world.is_main:
                writer.remove_leftovers()
            # Before the frames: a checkpoint without text tower is found out before hours of work.
            language = embed_tasks(encoder, writer) if world.is_main and encoder.language else None
            missing = world.broadcast(writer.missing_shards() if world.is_main else None)
            frozen.batch_size = world.broadcast(
                settle_batch_size(frozen, encoder, spec, folder) if world.is_main else None
            )
            # A run of neighbouring shards each: files are then read in order, mostly by one rank.
            share = world.share(missing)
            encode_shards(source, frozen, writer, share, files, signals, quiet=not world.is_main)
            world.barrier()
            if world.is_main and (missing or writer.finished() is None):
                writer.finish(language)
            elif language is not None:
                writer.add_language(language)
            for file, data in (notes or {}).items() if world.is_main else ():
                write_atomically(folder / file, data)
    seconds = time.monotonic() - started
    images = sum(len(spec.frame_range(shard)) for shard in missing) * len(spec.camera_names) * spec.variants
    return EmbedReport(
        cache=str(folder),
        fingerprint=spec.fingerprint,
        frames=spec.num_frames,
        cameras=spec.camera_names,
        shards=spec.num_shards,
        shards_encoded=len(missing),
        encoder=frozen.identity.describe(),
        seconds=round(seconds, 3),
        images_per_s=round(images / seconds, 1),
        texts=len(language.tasks) if language else 0,
    )


def for_large_batches(encoder: EncoderConfig) -> EncoderConfig:
    """Return how an encoder is compiled here: CUDA graphs help small batches, which rollouts have.

    Before torch 2.13 they do not work in threads that Python starts either, such as the pipeline's.
    """
    return encoder.model_copy(update={"compile": "on"}) if encoder.compile == "graphs" else encoder


def plan_cache(
    source: FrameSource,
    dataset: DatasetIdentity,
    encoder: FrozenEncoder,
    cache: CacheConfig,
    augmentation: Augmentation,
) -> CacheSpec:
    """Say what a cache is going to hold; its fingerprint follows from that."""
    return CacheSpec(
        dataset=dataset,
        encoder=encoder.identity,
        preprocessing=encoder.preprocessing,
        camera_names=source.camera_names,
        state_dim=source.state_dim,
        action_dim=source.action_dim,
        episodes=source.episodes,
        shard_frames=cache.shard_frames,
        augmentation=augmentation,
    )


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
        encoder: the frozen encoder.
        writer: of the cache.
        shards: numbers of those to encode.
        files: the dataset's; no shard is written once one of them has changed.
        signals: looked at between shards.
        quiet: show no progress.
    """
    spec = writer.spec
    total = sum(len(spec.frame_range(shard)) for shard in shards)

    def encoded() -> Iterator[tuple[int, Frames]]:
        try:
            yield from encode_frames(source, encoder, spec, shards)
        except DatasetError:
            files.require_unchanged()  # if a file has changed, that is what is wrong
            raise

    with Progress("embed", total, unit="frames", quiet=quiet) as progress:
        pieces: list[Frames] = []
        done = 0
        signals.stop_if_asked("nothing is encoded yet")
        for shard, piece in encoded():
            writer.require_finite(piece)
            pieces.append(piece)
            progress.update(len(piece.state))
            if sum(len(piece.state) for piece in pieces) == len(spec.frame_range(shard)):
                files.require_unchanged()
                writer.write(shard, _join(pieces))
                pieces.clear()
                done += 1
                signals.stop_if_asked(f"{done} shards of this run are kept, and all before it")


def _join(pieces: list[Frames]) -> Frames:
    cameras = pieces[0].features
    return Frames(
        features={camera: np.concatenate([piece.features[camera] for piece in pieces]) for camera in cameras},
        state=np.concatenate([piece.state for piece in pieces]),
        action=np.concatenate([piece.action for piece in pieces]),
        episode_index=np.concatenate([piece.episode_index for piece in pieces]),
        frame_index=np.concatenate([piece.frame_index for piece in pieces]),
    )
