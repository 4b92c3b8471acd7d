"""Small real things for tests: datasets, encoder checkpoints, caches."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from fake_datasets import CAMERAS as CAMERAS
from fake_datasets import TASK as TASK
from fake_datasets import fake_images as fake_images
from fake_datasets import png as png
from fake_datasets import write_dataset as write_dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vla.cache import (
    ACTION,
    STATE,
    CacheSpec,
    CacheWriter,
    DatasetIdentity,
    EncoderIdentity,
    Episode,
    FeatureCache,
    Stream,
)
from vla.cache.shard import POSITIONS
from vla.cache.tables import digest_rows, table_bytes

Policy = TypeVar("Policy", bound=nn.Module)
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


PREPROCESSING = {
    "image_size": [256, 256],
    "interpolation": "bilinear-antialias-uint8",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def fake_identity(**changes: Any) -> EncoderIdentity:
    """Describe an encoder that does not exist."""
    values: dict[str, Any] = {
        "type": "siglip",
        "id": "fake-encoder",
        "weights_sha256": "b" * 64,
        "dtype": "float32",
        "settings": {"pooling": "pooled", **PREPROCESSING},
    }
    return EncoderIdentity(**{**values, **changes})


def fake_spec(
    lengths: Sequence[int] = (12, 9),
    dim: int = 8,
    shard_frames: int = 8,
    *,
    cameras: Sequence[str] = CAMERAS,
    tokens: int = 1,
    state_dim: int = 16,
    action_dim: int = 16,
    sensors: Sequence[Stream] = (),
    encoder: EncoderIdentity | None = None,
    **changes: Any,
) -> CacheSpec:
    """Describe a small cache: features of cameras, sensors, state and action."""
    encoder = encoder or fake_identity()
    first = [sum(lengths[:i]) for i in range(len(lengths))]
    features = [
        Stream(name=name, kind="tokens", dtype="float16", shape=(tokens, dim), made_by=encoder.digest)
        for name in cameras
    ]
    vectors = [
        Stream(name=name, kind="vector", dtype="float32", shape=(size,), key=key)
        for name, size, key in ((STATE, state_dim, "observation.state"), (ACTION, action_dim, "action"))
    ]
    keys = {camera: f"observation.images.{camera}" for camera in cameras}
    keys |= {stream.name: stream.key for stream in (*sensors, *vectors)}
    values: dict[str, Any] = {
        "dataset": DatasetIdentity(
            path="data/fake", format="lerobot-v3.0", content_sha256="a" * 64, fps=25, keys=keys
        ),
        "streams": (*features, *sensors, *vectors),
        "encoders": {encoder.digest: encoder} if features else {},
        "episodes": tuple(
            Episode(index=i, length=n, first_frame=f, task=TASK)
            for i, (n, f) in enumerate(zip(lengths, first, strict=True))
        ),
        "shard_frames": shard_frames,
    }
    values |= changes
    made_of = [f"{values['dataset'].content_sha256} {i} {n}".encode() for i, n in enumerate(lengths)]
    return CacheSpec(**{"contents": tuple(hashlib.sha256(data).digest() for data in made_of), **values})


def fake_frames(spec: CacheSpec, shard: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random features and sensors and a smooth motion, for the frames of a shard."""
    frames = spec.frame_range(shard)
    rng = np.random.default_rng([seed, shard])
    arrays = spec.layout(shard).allocate()
    for stream in spec.streams:
        shape = arrays[stream.name].shape
        if stream.name in (STATE, ACTION):
            phase = np.array([[0.1 * f + 0.3 * d for d in range(shape[1])] for f in frames])
            arrays[stream.name][:] = np.sin(phase + 0.1 * (stream.name == ACTION))
        elif stream.dtype == "uint8":
            arrays[stream.name][:] = rng.integers(0, 256, shape)
        else:
            arrays[stream.name][:] = rng.normal(size=shape)
    return arrays | dict(zip(POSITIONS, spec.part.positions(shard), strict=True))


def write_cache(root: Path, spec: CacheSpec | None = None) -> FeatureCache:
    """Write a finished cache of random features."""
    spec = spec or fake_spec()
    writer = CacheWriter(root, spec)
    for shard in writer.missing_shards():
        writer.write(shard, fake_frames(spec, shard))
    writer.finish()
    return FeatureCache(root)


def written(folder: Path, seed: int, content: str, **changes: Any) -> FeatureCache:
    """Write a cache with an identity of its own; actions and states are seed + 1 times as large."""
    values = {"dim": 4, "state_dim": 3, "action_dim": 2, **changes}
    dataset = fake_spec(**values).dataset.model_copy(update={"content_sha256": content * 64})
    spec = fake_spec(**values, dataset=dataset)
    writer = CacheWriter(folder, spec)
    for shard in writer.missing_shards():
        arrays = fake_frames(spec, shard, seed)
        for name in ("state", "action"):
            arrays[name] *= seed + 1
        writer.write(shard, arrays)
    writer.finish()
    return FeatureCache(folder)


def shard_file(cache: Path, number: int = 0) -> Path:
    """Return where a shard of a cache of one part lies."""
    (part,) = (cache / "parts").iterdir()
    return part / f"shards/{number:05d}.safetensors"


def reseal(cache: Path) -> None:
    """Write down the checksums that the shards of a cache of one part have now."""
    shards = sorted(shard_file(cache).parent.iterdir())
    part = shards[0].parents[1]
    sums = table_bytes({"sha256": digest_rows([hashlib.sha256(p.read_bytes()).digest() for p in shards])})
    (part / "shards.parquet").write_bytes(sums)
    header = json.loads((part / "part.json").read_bytes())
    header["shards_sha256"] = hashlib.sha256(sums).hexdigest()
    (part / "part.json").write_text(json.dumps(header))


def awake_agent(agent: Policy, seed: int = 0) -> Policy:
    """Give an untrained agent actions that depend on what it sees; its last layers begin at zero."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    return agent
