"""The encode loop: every frame of every camera through the frozen encoder, once.

    FrameSource.read ──(a thread, a few blocks ahead)──> FrozenEncoder.encode_views ──> CacheWriter

Blocks are cut from the start of each shard, so a shard's bytes do not depend on where an earlier run
was interrupted.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla.cache import CacheConfig, CacheSpec, CacheWriter, Frames
from vla.embed.config import DatasetConfig, EncoderConfig
from vla.embed.encoder import FrozenEncoder
from vla.embed.prefetch import prefetch
from vla.embed.sources import FrameBlock, FrameSource, open_source
from vla.lock import exclusive
from vla.progress import Progress

BLOCK_FRAMES = 16
BLOCKS_AHEAD = 8


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


def embed(dataset: DatasetConfig, encoder: EncoderConfig, cache: CacheConfig) -> EmbedReport:
    """Encode a dataset into a feature cache below `cache.path`, or finish one that was interrupted.

    Raises:
        DatasetError: the demonstrations cannot be read.
        EncoderError: the encoder cannot be loaded.
        CacheError: features are not finite.
        VlaError: another process is writing the same cache.
    """
    started = time.monotonic()
    source = open_source(dataset, encoder.workers)
    frozen = FrozenEncoder.load(encoder)
    spec = CacheSpec(
        dataset=source.identity(),
        encoder=frozen.identity,
        preprocessing=frozen.preprocessing,
        camera_names=source.camera_names,
        state_dim=source.state_dim,
        action_dim=source.action_dim,
        episodes=source.episodes,
        shard_frames=cache.shard_frames,
    )
    name = f"{Path(dataset.path).resolve().name}-{Path(encoder.id).name}-{spec.fingerprint}"
    folder = Path(cache.path) / name
    with exclusive(folder):
        writer = CacheWriter(folder, spec)
        missing = writer.missing_shards()
        encode_shards(source, frozen, writer, missing)
        if missing or not (folder / "cache.json").is_file():
            writer.finish()
    seconds = time.monotonic() - started
    images = sum(len(spec.frame_range(shard)) for shard in missing) * len(spec.camera_names)
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
    )


def encode_shards(
    source: FrameSource, encoder: FrozenEncoder, writer: CacheWriter, shards: list[int]
) -> None:
    """Encode and write the given shards, decoding ahead of the encoder across shard borders."""
    spec = writer.spec
    left = sum(len(spec.frame_range(shard)) for shard in shards)

    def blocks() -> Iterator[tuple[int, FrameBlock]]:
        for shard in shards:
            for block in source.read(spec.frame_range(shard), BLOCK_FRAMES):
                yield shard, block

    with Progress("embed", spec.num_frames, done=spec.num_frames - left, unit="frames") as progress:
        pieces: list[Frames] = []
        for shard, block in prefetch(blocks(), BLOCKS_AHEAD):
            pieces.append(_encode_block(encoder, block))
            progress.update(len(block.state))
            if sum(len(piece.state) for piece in pieces) == len(spec.frame_range(shard)):
                writer.write(shard, _join(pieces))
                pieces.clear()


def _encode_block(encoder: FrozenEncoder, block: FrameBlock) -> Frames:
    """Replace a block's images by their features, as one variant."""
    features = encoder.encode_views(block.images)
    return Frames(
        features={camera: array[:, None] for camera, array in features.items()},
        state=block.state,
        action=block.action,
        episode_index=block.episode_index,
        frame_index=block.frame_index,
    )


def _join(pieces: list[Frames]) -> Frames:
    cameras = pieces[0].features
    return Frames(
        features={camera: np.concatenate([piece.features[camera] for piece in pieces]) for camera in cameras},
        state=np.concatenate([piece.state for piece in pieces]),
        action=np.concatenate([piece.action for piece in pieces]),
        episode_index=np.concatenate([piece.episode_index for piece in pieces]),
        frame_index=np.concatenate([piece.frame_index for piece in pieces]),
    )
