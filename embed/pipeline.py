"""From frames on disk to features in memory: decoding, preparing and encoding, all at the same time.

    FrameSource.read ─> prepare ──(a thread, a few blocks ahead)──> FrozenEncoder.encode ──> Frames, in order
     decode              resize,                                     several blocks at a time, a thread each:
                         augment                                     see vla.threads

Blocks are cut from the start of each shard, so a shard's bytes do not depend on where an earlier run
was interrupted.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from vla.cache import Augmentation, CacheSpec, Frames
from vla.embed.augment import augment
from vla.embed.encoder import FrozenEncoder
from vla.embed.preprocess import resize
from vla.embed.sources import FrameBlock, FrameSource
from vla.prefetch import prefetch
from vla.threads import compute_threads, num_workers

BLOCK_FRAMES = 16
FRAMES_AHEAD = 128
"""Decoded frames that wait, of all variants together; 75 MB of three cameras at 256 x 256."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A block at the encoder's size, all cameras one after the other."""

    shard: int
    block: FrameBlock
    variants: list[UInt8[np.ndarray, "rows h w 3"]]
    """Of each variant, `n` rows a camera."""


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
    waiting: deque[tuple[int, Future[Frames]]] = deque()
    workers = num_workers(encoder.device)
    with compute_threads(encoder.device, workers) as pool:
        for prepared in blocks:
            task = pool.submit(encode_block, encoder, prepared.block, prepared.variants)
            waiting.append((prepared.shard, task))
            if len(waiting) > workers:  # one more than can be at work: nobody waits for the consumer
                shard, frames = waiting.popleft()
                yield shard, frames.result()
        for shard, frames in waiting:
            yield shard, frames.result()


def block_frames(batch_size: int, cameras: int) -> int:
    """Return how many frames of all cameras fill a forward pass, at least 16."""
    return max(BLOCK_FRAMES, batch_size // cameras)


def prepare(
    block: FrameBlock, size: tuple[int, int], augmentation: Augmentation
) -> list[UInt8[np.ndarray, "rows h w 3"]]:
    """Return all variants of a block's images at one size."""
    resized = {camera: resize(frames, size) for camera, frames in block.images.items()}
    return [
        np.concatenate(
            [
                augment(frames, block.episode_index, camera, variant, augmentation)
                for camera, frames in resized.items()
            ]
        )
        for variant in range(1 + augmentation.variants)
    ]


def encode_block(
    encoder: FrozenEncoder, block: FrameBlock, variants: list[UInt8[np.ndarray, "rows h w 3"]]
) -> Frames:
    """Replace a block's images by the features of all their variants, which `prepare` has made."""
    cameras = list(block.images)
    # [cameras, n] of each variant; a frame's variants lie next to each other in a shard.
    features = np.stack([encoder.encode(images) for images in variants], axis=1)
    return Frames(
        features=dict(zip(cameras, np.split(features, len(cameras)), strict=True)),
        state=block.state,
        action=block.action,
        episode_index=block.episode_index,
        frame_index=block.frame_index,
    )


def _prepared(
    source: FrameSource, encoder: FrozenEncoder, spec: CacheSpec, shards: Sequence[int], size: int
) -> Iterator[Prepared]:
    image_size = encoder.preprocessing.image_size
    for shard in shards:
        for block in source.read(spec.frame_range(shard), size):
            variants = prepare(block, image_size, spec.augmentation)
            yield Prepared(shard=shard, block=block, variants=variants)
