"""Small real things for tests: datasets, encoder checkpoints, caches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fake_datasets import CAMERAS as CAMERAS
from fake_datasets import TASK as TASK
from fake_datasets import fake_images as fake_images
from fake_datasets import png as png
from fake_datasets import write_dataset as write_dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vla.cache import (
    CacheSpec,
    CacheWriter,
    DatasetIdentity,
    EncoderIdentity,
    Episode,
    FeatureCache,
    Frames,
    Preprocessing,
)
from vla.policy.agent import VLAAgent

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 256,
    "patch_size": 64,
}


def write_vision_checkpoint(root: Path, seed: int = 0) -> Path:
    """Write a SigLIP vision tower with transformers itself."""
    torch.manual_seed(seed)
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(root)
    return root


def write_two_tower_checkpoint(root: Path, seed: int = 0) -> Path:
    """Write a whole SigLIP model, vision and text, as it is published."""
    torch.manual_seed(seed)
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(vision_config=VISION, text_config={**text, "vocab_size": 64})
    SiglipModel(config).save_pretrained(root)
    return root


WORDS = ("<pad>", "<eos>", "<unk>", "pick", "the", "red", "box", "hand", "it", "over")


def write_tokenizer(folder: Path, words: Sequence[str] = WORDS, padding_side: str = "right") -> Path:
    """Write a tokeniser of a few words beside a checkpoint; all other words are the same to it."""
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=padding_side, **special)
    fast.save_pretrained(folder)
    return folder


def fake_spec(
    lengths: Sequence[int] = (12, 9), dim: int = 8, shard_frames: int = 8, **changes: Any
) -> CacheSpec:
    """Describe a small cache."""
    first = [sum(lengths[:i]) for i in range(len(lengths))]
    values: dict[str, Any] = {
        "dataset": DatasetIdentity(
            path="data/fake",
            format="lerobot-v3.0",
            content_sha256="a" * 64,
            fps=25,
            state_key="observation.state",
            action_key="action",
        ),
        "encoder": EncoderIdentity(
            id="fake-encoder",
            revision=None,
            weights_sha256="b" * 64,
            pooling="pooled",
            dtype="float32",
            feature_dim=dim,
            tokens=1,
        ),
        "preprocessing": Preprocessing(image_size=(256, 256)),
        "camera_names": CAMERAS,
        "state_dim": 16,
        "action_dim": 16,
        "episodes": tuple(
            Episode(index=i, length=n, first_frame=f, task=TASK)
            for i, (n, f) in enumerate(zip(lengths, first, strict=True))
        ),
        "shard_frames": shard_frames,
    }
    return CacheSpec(**{**values, **changes})


def fake_frames(spec: CacheSpec, shard: int, seed: int = 0) -> Frames:
    """Random features and a smooth motion for the frames of a shard."""
    frames = spec.frame_range(shard)
    rng = np.random.default_rng([seed, shard])
    shape = (len(frames), spec.variants, spec.encoder.tokens, spec.encoder.feature_dim)
    episode_of = [next(e for e in reversed(spec.episodes) if e.first_frame <= f) for f in frames]
    phase = np.array([[0.1 * f + 0.3 * d for d in range(spec.state_dim)] for f in frames])
    return Frames(
        features={camera: rng.normal(size=shape).astype(np.float16) for camera in spec.camera_names},
        state=np.sin(phase).astype(np.float32),
        action=np.sin(phase + 0.1).astype(np.float32)[:, : spec.action_dim],
        episode_index=np.array([e.index for e in episode_of], np.int32),
        frame_index=np.array([f - e.first_frame for f, e in zip(frames, episode_of, strict=True)], np.int32),
    )


def write_cache(root: Path, spec: CacheSpec | None = None) -> FeatureCache:
    """Write a finished cache of random features."""
    spec = spec or fake_spec()
    writer = CacheWriter(root, spec)
    for shard in writer.missing_shards():
        writer.write(shard, fake_frames(spec, shard))
    writer.finish()
    return FeatureCache(root)


def awake_agent(agent: VLAAgent, seed: int = 0) -> VLAAgent:
    """Give an untrained agent actions that depend on what it sees; its last layers begin at zero."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    return agent
