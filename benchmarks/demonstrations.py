"""Data to measure with: frames in memory, datasets on disk, caches of random features, encoders."""

import copy
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from vla.base.compiling import Compile
from vla.base.device import DtypeName, choose_dtype
from vla.cache import (
    CacheConfig,
    CacheSpec,
    CacheWriter,
    DatasetIdentity,
    EncoderIdentity,
    Episode,
    FeatureCache,
    Frames,
)
from vla.cache.metadata import Augmentation, Preprocessing
from vla.embed import EncoderConfig, FrozenEncoder
from vla.embed.datasets import FrameBlock, FrameSource
from vla.embed.datasets.watch import FileWatch
from vla.embed.encoder import CPU_BATCH, GPU_BATCH
from vla.embed.encoders.builtin import TINY_SIM
from vla.embed.encoders.siglip_checkpoint import load_checkpoint
from vla.embed.engine import plan_cache
from vla.policy.agent import AgentConfig, VLAAgent
from vla.policy.policy_config import PolicyConfig

# Small demonstrations in every format are written by the tests, without vla's own code.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
from fake_datasets import FPS, camera_images, png, write_dataset, write_video

__all__ = ["CAMERAS", "FULL", "SMALL", "MemorySource", "camera_images", "load_encoder", "png"]

CAMERAS = ("r_vis", "top", "front")
EPISODE = 200
"""Frames of an episode."""
SIGLIP2_BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 256,
    "patch_size": 16,
}
FULL, SMALL = "siglip2-base", TINY_SIM
PREPROCESSING = Preprocessing(image_size=(256, 256))


def load_encoder(
    name: str, device: torch.device, compiling: Compile = "off", batch: int = 0
) -> FrozenEncoder:
    """Load an encoder by name; the full-size one has the real shape and random weights, as fast as any."""
    if name == SMALL:
        config = EncoderConfig(id=SMALL, device=str(device), compile=compiling, batch_size=batch)
        return FrozenEncoder.load(config)
    identity = untrained_identity(dtype=choose_dtype("auto", device))
    return FrozenEncoder(
        copy.deepcopy(_full_size()),
        PREPROCESSING,
        identity,
        device=device,
        batch_size=batch or (GPU_BATCH if device.type == "cuda" else CPU_BATCH),
        compiling=compiling,
    )


def bare_tower(name: str, device: torch.device) -> SiglipVisionModel:
    """Return an encoder's tower as transformers builds it, in the arithmetic that vla takes on the device."""
    tower = _full_size() if name == FULL else load_checkpoint(name, "main").model
    dtype = getattr(torch, choose_dtype("auto", device))
    return copy.deepcopy(tower).eval().requires_grad_(False).to(device=device, dtype=dtype)


def untrained_identity(
    dim: int = SIGLIP2_BASE["hidden_size"],
    tokens: int = 1,
    dtype: DtypeName = "float32",
) -> EncoderIdentity:
    """Name the full-size tower, whose weights are drawn at random."""
    return EncoderIdentity(
        id=FULL,
        revision=None,
        weights_sha256="0" * 64,
        pooling="pooled",
        dtype=dtype,
        feature_dim=dim,
        tokens=tokens,
    )


def untrained_agent(policy: PolicyConfig, encoder: EncoderIdentity) -> VLAAgent:
    """Build an agent of three views, state and action of 16; its weights do not matter to time."""
    torch.manual_seed(0)
    return VLAAgent(
        AgentConfig(
            policy=policy,
            camera_names=CAMERAS,
            state_dim=16,
            action_dim=16,
            fps=FPS,
            encoder=encoder,
            preprocessing=PREPROCESSING,
            cache_fingerprint="none",
        )
    )


@functools.cache
def _full_size() -> SiglipVisionModel:
    """Build the full-size tower once: drawing its weights takes seconds."""
    torch.manual_seed(0)
    return SiglipVisionModel(SiglipVisionConfig(**SIGLIP2_BASE))


class MemorySource(FrameSource):
    """Frames that are in memory already: a few, again and again.

    Args:
        frames: how many there seem to be.
        size: height and width of the images [pixel].
    """

    format, fps, camera_names, state_dim, action_dim = "memory", float(FPS), CAMERAS, 16, 16
    state_key, action_key = "observation.state", "action"

    def __init__(self, frames: int, size: tuple[int, int] = (256, 256)) -> None:
        self._episodes = tuple(
            Episode(index=i, length=min(EPISODE, frames - first), first_frame=first, task="")
            for i, first in enumerate(range(0, frames, EPISODE))
        )
        rng = np.random.default_rng(0)
        self._images = rng.integers(0, 256, (512, *size, 3), dtype=np.uint8)

    @property
    def episodes(self) -> tuple[Episode, ...]:
        return self._episodes

    def files(self) -> list[str]:
        return []

    def watch(self) -> FileWatch:
        return FileWatch("memory", Path(), [])

    def identity(self) -> DatasetIdentity:
        return DatasetIdentity(
            path="memory",
            format=self.format,
            content_sha256="0" * 64,
            fps=self.fps,
            state_key=self.state_key,
            action_key=self.action_key,
        )

    def read(self, frames: range, block: int) -> Iterator[FrameBlock]:
        for first in range(frames.start, frames.stop, block):
            rows = np.arange(first, min(first + block, frames.stop))
            start = first % (len(self._images) - block)
            images = self._images[start : start + len(rows)]
            yield FrameBlock(
                images=dict.fromkeys(self.camera_names, images),
                state=np.zeros((len(rows), 16), np.float32),
                action=np.zeros((len(rows), 16), np.float32),
                episode_index=(rows // EPISODE).astype(np.int32),
                frame_index=(rows % EPISODE).astype(np.int32),
            )


def cache_spec(source: FrameSource, encoder: FrozenEncoder) -> CacheSpec:
    """Describe the cache of a source."""
    return plan_cache(source, source.identity(), encoder, CacheConfig(), Augmentation())


def write_images(root: Path, frames: int) -> Path:
    """Write a LeRobotDataset v3.0 of three cameras, PNG at the encoder's size."""
    return write_dataset(root, lengths=_lengths(frames))


def write_videos(root: Path, frames: int) -> Path:
    """Write one of three cameras in H.264, a keyframe in two frames as LeRobot's default has it."""
    lengths = _lengths(frames)
    write_dataset(root, lengths, cameras=dict.fromkeys(CAMERAS, "video"), episodes_per_file=len(lengths))
    for k, camera in enumerate(CAMERAS):
        still = camera_images(0, k, 1)[0]
        shown = np.stack([np.roll(still, frame % 256, axis=1) for frame in range(frames)])
        path = root / f"videos/observation.images.{camera}/chunk-000/file-000.mp4"
        write_video(path, shown, codec="libx264", options={"crf": "23", "g": "2"})
    return root


def _lengths(frames: int) -> list[int]:
    return [min(EPISODE, frames - first) for first in range(0, frames, EPISODE)]


def write_random_cache(folder: Path, frames: int, dim: int = 768, tokens: int = 1) -> FeatureCache:
    """Write a cache of random features, the same in every shard."""
    source = MemorySource(frames)
    spec = CacheSpec(
        dataset=source.identity(),
        encoder=untrained_identity(dim, tokens),
        preprocessing=PREPROCESSING,
        camera_names=CAMERAS,
        state_dim=16,
        action_dim=16,
        episodes=source.episodes,
        shard_frames=4096,
    )
    writer = CacheWriter(folder, spec)
    rng = np.random.default_rng(0)
    shape = (spec.frames_per_shard, 1, tokens, dim)
    features = {camera: rng.standard_normal(shape, np.float32).astype(np.float16) for camera in CAMERAS}
    vectors = rng.standard_normal((2, spec.frames_per_shard, 16), np.float32)
    for shard in writer.missing_shards():
        rows = np.array(spec.frame_range(shard))
        count = len(rows)
        writer.write(
            shard,
            Frames(
                features={camera: values[:count] for camera, values in features.items()},
                state=vectors[0, :count],
                action=vectors[1, :count],
                episode_index=(rows // EPISODE).astype(np.int32),
                frame_index=(rows % EPISODE).astype(np.int32),
            ),
        )
    writer.finish()
    return FeatureCache(folder)
