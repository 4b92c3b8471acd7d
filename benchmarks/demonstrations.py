"""Data to measure with: frames in memory, datasets on disk, caches of random features, encoders."""

import copy
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from vla.base.compiling import Compile
from vla.base.device import DtypeName, choose_dtype
from vla.cache import (
    ACTION,
    STATE,
    Augmentation,
    CacheConfig,
    CacheSpec,
    CacheWriter,
    EncoderIdentity,
    Episode,
    FeatureCache,
    Stream,
)
from vla.embed import FrozenEncoder, SiglipConfig
from vla.embed.datasets import FrameBlock, FrameSource
from vla.embed.datasets.content import FileWatch
from vla.embed.encoders.siglip import TINY_SIM, SiglipEncoder
from vla.embed.encoders.siglip_checkpoint import load_checkpoint
from vla.embed.engine import plan_cache
from vla.embed.transforms import Preprocessing
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.saved_policy import SavedPolicy

# Small demonstrations in every format are written by the tests, without vla's own code.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
from fake_datasets import FPS, camera_images, png, write_dataset, write_video

__all__ = ["CAMERAS", "FULL", "SMALL", "MemorySource", "camera_images", "load_encoder", "png"]

CAMERAS = ("r_vis", "top", "front")
VECTORS = tuple(
    Stream(name=name, kind="vector", dtype="float32", shape=(16,), key=key)
    for name, key in ((STATE, "observation.state"), (ACTION, "action"))
)
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
WIDTH = SIGLIP2_BASE["hidden_size"]
FULL, SMALL = "siglip2-base", TINY_SIM
PREPROCESSING = Preprocessing(image_size=(256, 256))


def load_encoder(
    name: str, device: torch.device, compiling: Compile = "off", batch: int = 0
) -> FrozenEncoder:
    """Load an encoder by name; the full-size one has the real shape and random weights, as fast as any."""
    if name == SMALL:
        config = SiglipConfig(id=SMALL, device=str(device), compile=compiling, batch_size=batch)
        return FrozenEncoder.load(config, CAMERAS)
    identity = untrained_identity(choose_dtype("auto", device))
    encoder = SiglipEncoder(copy.deepcopy(_full_size()), identity, CAMERAS)
    return FrozenEncoder(encoder, device=device, batch_size=batch, compiling=compiling)


def siglip(encoder: FrozenEncoder) -> SiglipEncoder:
    """Return what of an encoder is SigLIP's own: tower and preprocessing."""
    assert isinstance(encoder.encoder, SiglipEncoder)
    return encoder.encoder


def bare_tower(name: str, device: torch.device) -> nn.Module:
    """Return an encoder's tower as transformers builds it, in the arithmetic that vla takes on the device."""
    tower = _full_size() if name == FULL else load_checkpoint(name, "main").model
    dtype = getattr(torch, choose_dtype("auto", device))
    bare: nn.Module = copy.deepcopy(tower).eval().requires_grad_(False).to(device=device, dtype=dtype)
    return bare


def untrained_identity(dtype: DtypeName = "float32") -> EncoderIdentity:
    """Name the full-size tower, whose weights are drawn at random."""
    return EncoderIdentity(
        type="siglip",
        id=FULL,
        weights_sha256="0" * 64,
        dtype=dtype,
        settings={"pooling": "pooled", **PREPROCESSING.settings()},
    )


def features(encoder: EncoderIdentity, dim: int = WIDTH, tokens: int = 1) -> tuple[Stream, ...]:
    """Describe what an encoder writes of the three cameras."""
    return tuple(
        Stream(name=name, kind="tokens", dtype="float16", shape=(tokens, dim), made_by=encoder.digest)
        for name in CAMERAS
    )


def untrained_agent(policy: VLAAgentConfig, encoder: EncoderIdentity, dim: int = WIDTH) -> VLAAgent:
    """Build an agent of three views, state and action of 16; its weights do not matter to time."""
    torch.manual_seed(0)
    saved = SavedPolicy(
        policy=policy,
        streams=(*features(encoder, dim), VECTORS[0]),
        action=VECTORS[1],
        fps=FPS,
        encoders={encoder.digest: encoder},
        cache_fingerprint="none",
    )
    return VLAAgent(saved, policy)


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

    format, fps = "memory", float(FPS)

    def __init__(self, frames: int, size: tuple[int, int] = (256, 256)) -> None:
        self._episodes = tuple(
            Episode(index=i, length=min(EPISODE, frames - first), first_frame=first, task="")
            for i, first in enumerate(range(0, frames, EPISODE))
        )
        rng = np.random.default_rng(0)
        self._images = rng.integers(0, 256, (512, *size, 3), dtype=np.uint8)
        self._cameras = tuple(
            Stream(name=name, kind="image", dtype="uint8", shape=(*size, 3), key=f"observation.images.{name}")
            for name in CAMERAS
        )

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (*self._cameras, *VECTORS)

    @property
    def episodes(self) -> tuple[Episode, ...]:
        return self._episodes

    def files(self) -> list[str]:
        return []

    def watch(self) -> FileWatch:
        return FileWatch("memory", Path(), [])

    @property
    def path(self) -> str:
        return "memory"

    @property
    def chosen(self) -> tuple[int, ...] | None:
        return None

    def contents(self, positions: Sequence[int]) -> list[bytes]:
        return [position.to_bytes(32, "little") for position in positions]

    def place(self, position: int) -> tuple[tuple[str, ...], str]:
        return (), str(position)

    def files_sha256(self) -> str:
        return "0" * 64

    def read(self, frames: range, block: int, size: tuple[int, int] | None = None) -> Iterator[FrameBlock]:
        assert size in (None, self._images.shape[1:3])  # nothing is to be done to them
        for first in range(frames.start, frames.stop, block):
            rows = np.arange(first, min(first + block, frames.stop))
            start = first % (len(self._images) - block)
            images = self._images[start : start + len(rows)]
            vectors = {stream.name: np.zeros((len(rows), 16), np.float32) for stream in VECTORS}
            yield FrameBlock(
                streams={**dict.fromkeys(self.camera_names, images), **vectors},
                episode_index=(rows // EPISODE).astype(np.int32),
                frame_index=(rows % EPISODE).astype(np.int32),
            )


def cache_spec(source: FrameSource, encoder: FrozenEncoder) -> CacheSpec:
    """Describe the cache of a source."""
    contents = source.contents(range(len(source.episodes)))
    return plan_cache(source, contents, encoder, CacheConfig(), Augmentation())


def write_images(root: Path, frames: int, size: tuple[int, int] = (256, 256)) -> Path:
    """Write a LeRobotDataset v3.0 of three cameras in PNG."""
    return write_dataset(root, lengths=_lengths(frames), size=size)


def write_videos(root: Path, frames: int, size: tuple[int, int] = (256, 256)) -> Path:
    """Write one of three cameras in H.264, a keyframe in two frames as LeRobot's default has it."""
    lengths = _lengths(frames)
    write_dataset(
        root, lengths, size, cameras=dict.fromkeys(CAMERAS, "video"), episodes_per_file=len(lengths)
    )
    for k, camera in enumerate(CAMERAS):
        still = camera_images(0, k, 1, size)[0]
        shown = np.stack([np.roll(still, frame % size[1], axis=1) for frame in range(frames)])
        path = root / f"videos/observation.images.{camera}/chunk-000/file-000.mp4"
        write_video(path, shown, codec="libx264", options={"crf": "23", "g": "2"})
    return root


def _lengths(frames: int) -> list[int]:
    return [min(EPISODE, frames - first) for first in range(0, frames, EPISODE)]


def write_random_cache(folder: Path, frames: int, dim: int = WIDTH, tokens: int = 1) -> FeatureCache:
    """Write a cache of random features, the same in every shard."""
    source, encoder = MemorySource(frames), untrained_identity()
    spec = CacheSpec(
        dataset=source.identity(),
        streams=(*features(encoder, dim, tokens), *VECTORS),
        encoders={encoder.digest: encoder},
        episodes=source.episodes,
        contents=tuple(source.contents(range(len(source.episodes)))),
        shard_frames=4096,
    )
    writer = CacheWriter(folder, spec)
    rng = np.random.default_rng(0)
    first = writer.allocate(0)
    drawn = {
        stream.name: rng.standard_normal(first[stream.name].shape, np.float32).astype(stream.dtype)
        for stream in spec.streams
    }
    for shard in writer.missing_shards():
        arrays = writer.allocate(shard)
        for name, values in drawn.items():
            arrays[name][:] = values[: len(arrays[name])]
        writer.write(shard, arrays)
    writer.finish()
    return FeatureCache(folder)
