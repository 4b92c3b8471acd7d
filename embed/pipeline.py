"""From frames on disk to features in memory: decoding, preparing and encoding, all at the same time.

    FrameSource.read ─> prepare ──(a thread, a few blocks ahead)──> FrozenEncoder.encode ──> Frames, in order
     decode              resize,                                     several batches at a time, a thread
                         augment                                     each: see vla.base.threads

Blocks are cut from the start of each shard, so a shard's bytes do not depend on where an earlier run
was interrupted.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float16, UInt8

from vla.base.prefetch import prefetch
from vla.base.threads import compute_threads, num_workers
from vla.cache import Augmentation, CacheSpec, Frames
from vla.embed.augment import augment
from vla.embed.datasets import FrameBlock, FrameSource
from vla.embed.encoder import FrozenEncoder
from vla.embed.preprocess import resize

Features = Float16[np.ndarray, "rows tokens dim"]
Views = list[UInt8[np.ndarray, "_n h w 3"]]
"""The frames of each camera, in order."""
BLOCK_FRAMES = 16
FRAMES_AHEAD = 128
"""Frames that wait for the encoder, of all variants together; 75 MB of three cameras at 256 x 256. The
decoder is a block or two further."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A block at the encoder's size."""

    shard: int
    rows: Frames
    """Without features yet."""
    cameras: list[str]
    variants: list[Views]
    """The frames themselves, and the augmented variants."""


def encode_frames(
    source: FrameSource, encoder: FrozenEncoder, spec: CacheSpec, shards: Sequence[int]
) -> Iterator[tuple[int, Frames]]:
    """Yield (shard, next frames of it) in order, decoding ahead across shard borders.

    Args:
        source: the demonstrations.
        encoder: the frozen encoder; called from several threads.
        spec: of the cache.
        shards: numbers of those to encode.
    """
    size = block_frames(encoder.batch_size, len(spec.camera_names))
    ahead = max(2, FRAMES_AHEAD // (size * spec.variants))
    blocks = prefetch(_prepared(source, encoder, spec, shards, size), ahead)
    workers = num_workers(encoder.device)
    waiting: deque[tuple[Prepared, list[list[Future[Features]]]]] = deque()
    with compute_threads(encoder.device, workers) as pool:
        for prepared in blocks:
            waiting.append((prepared, [_submit(pool, encoder, images) for images in prepared.variants]))
            # Enough to do for all while the oldest is waited for.
            while sum(len(batches) for _, variants in list(waiting)[1:] for batches in variants) >= workers:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())


def _submit(pool: ThreadPoolExecutor, encoder: FrozenEncoder, views: Views) -> list[Future[Features]]:
    return [
        pool.submit(lambda pieces: encoder.encode(encoder.join(pieces)), pieces)
        for pieces in cut(views, encoder.batch_size)
    ]


def cut(views: Views, size: int) -> Iterator[Views]:
    """Cut the frames of all cameras, one after the other, into batches; nothing is copied.

    Args:
        views: frames of each camera.
        size: of a batch; the last one may be smaller.

    Yields:
        The pieces of a batch; where a camera ends in its middle, there are several.
    """
    pieces: Views = []
    room = size
    for frames in views:
        start = 0
        while start < len(frames):
            pieces.append(frames[start : start + room])
            start, room = start + len(pieces[-1]), room - len(pieces[-1])
            if not room:
                yield pieces
                pieces, room = [], size
    if pieces:
        yield pieces


def _result(prepared: Prepared, variants: list[list[Future[Features]]]) -> tuple[int, Frames]:
    features = [np.concatenate([batch.result() for batch in batches]) for batches in variants]
    return prepared.shard, with_features(prepared.rows, prepared.cameras, features)


def block_frames(batch_size: int, cameras: int) -> int:
    """Return how many frames of all cameras fill a forward pass, at least 16."""
    return max(BLOCK_FRAMES, batch_size // cameras)


def prepare(block: FrameBlock, size: tuple[int, int], augmentation: Augmentation) -> list[Views]:
    """Return all variants of a block's images at one size."""
    resized = {camera: resize(frames, size) for camera, frames in block.images.items()}
    return [
        [
            augment(frames, block.episode_index, camera, variant, augmentation)
            for camera, frames in resized.items()
        ]
        for variant in range(1 + augmentation.variants)
    ]


def rows_of(block: FrameBlock) -> Frames:
    """Return what a cache holds of a block besides features."""
    return Frames(
        features={},
        state=block.state,
        action=block.action,
        episode_index=block.episode_index,
        frame_index=block.frame_index,
    )


def with_features(rows: Frames, cameras: Sequence[str], variants: Sequence[Features]) -> Frames:
    """Complete rows by the features of all their variants, in the order that `prepare` gives."""
    # [cameras, n] of each variant; a frame's variants lie next to each other in a shard.
    features = np.stack(variants, axis=1)
    return replace(rows, features=dict(zip(cameras, np.split(features, len(cameras)), strict=True)))


def _prepared(
    source: FrameSource, encoder: FrozenEncoder, spec: CacheSpec, shards: Sequence[int], size: int
) -> Iterator[Prepared]:
    image_size = encoder.preprocessing.image_size
    for shard in shards:
        for block in source.read(spec.frame_range(shard), size):
            variants = prepare(block, image_size, spec.augmentation)
            # Not the block: its images have the dataset's own size, which may be large.
            yield Prepared(shard=shard, rows=rows_of(block), cameras=list(block.images), variants=variants)
