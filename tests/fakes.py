"""Small real things for tests: datasets, encoder checkpoints, caches."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

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

CAMERAS = ("r_vis", "top", "front")
TASK = "Pick the red box."
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 256,
    "patch_size": 64,
}


def fake_images(seed: int, count: int, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """Random smooth RGB images, uint8 [count, H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)) for image in coarse]
    )


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_dataset(
    root: Path, lengths: Sequence[int] = (5, 4), size: tuple[int, int] = (256, 256), state_dim: int = 16
) -> Path:
    """Write a LeRobotDataset v3.0 with image features, a data file an episode."""
    vector = {"dtype": "float32", "shape": [state_dim], "names": None}
    image = {"dtype": "image", "shape": [*size, 3], "names": ["height", "width", "channels"]}
    numbers = ("timestamp", "frame_index", "episode_index", "index", "task_index")
    features: dict[str, Any] = {f"observation.images.{camera}": image for camera in CAMERAS}
    features |= {"observation.state": vector, "action": vector}
    features |= {
        name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1]} for name in numbers
    }
    columns = datasets.Features(
        {f"observation.images.{camera}": datasets.Image() for camera in CAMERAS}
        | {
            key: datasets.Sequence(datasets.Value("float32"), length=state_dim)
            for key in ("observation.state", "action")
        }
        | {name: datasets.Value(features[name]["dtype"]) for name in numbers}
    )
    first, rows = 0, []
    for episode, length in enumerate(lengths):
        rng = np.random.default_rng(episode)
        table: dict[str, Any] = {
            f"observation.images.{camera}": [
                {"bytes": png(frame), "path": None} for frame in fake_images(100 * episode + k, length, size)
            ]
            for k, camera in enumerate(CAMERAS)
        }
        table["observation.state"] = list(rng.normal(size=(length, state_dim)).astype(np.float32))
        table["action"] = list(rng.normal(size=(length, state_dim)).astype(np.float32))
        table |= {
            "timestamp": [i / 25 for i in range(length)],
            "frame_index": list(range(length)),
            "episode_index": [episode] * length,
            "index": list(range(first, first + length)),
            "task_index": [0] * length,
        }
        path = root / f"data/chunk-000/file-{episode:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table, schema=columns.arrow_schema), path)
        rows.append(
            {
                "episode_index": episode,
                "tasks": [TASK],
                "length": length,
                "dataset_from_index": first,
                "dataset_to_index": first + length,
            }
        )
        first += length
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    pd.DataFrame({"task_index": [0]}, index=pd.Index([TASK], name="task")).to_parquet(
        root / "meta/tasks.parquet"
    )
    info = {
        "codebase_version": "v3.0",
        "fps": 25,
        "total_episodes": len(lengths),
        "total_frames": first,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "features": features,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


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
