"""One shard: a safetensors file of consecutive frames.

    features.<camera>  float16 [frames, variants, tokens, dim]
    state              float32 [frames, state_dim]
    action             float32 [frames, action_dim]
    episode_index      int32   [frames]
    frame_index        int32   [frames]   counted within the episode

The header's metadata has one entry, `shard`, a JSON object {fingerprint, first_frame, frames}. One
entry only: safetensors writes several in an order that changes from run to run, and the same frames
must give the same bytes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vla.errors import CacheError
from vla.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Consecutive frames in memory: what an encoder produced, with what the robot did."""

    features: dict[str, Float16[np.ndarray, "frames variants tokens dim"]]
    state: Float32[np.ndarray, "frames state_dim"]
    action: Float32[np.ndarray, "frames action_dim"]
    episode_index: Int32[np.ndarray, "frames"]
    frame_index: Int32[np.ndarray, "frames"]


@dataclass(frozen=True, kw_only=True)
class ShardHeader:
    """Which frames of which cache a shard holds."""

    fingerprint: str
    first_frame: int
    frames: int


def write_shard(path: Path, header: ShardHeader, frames: Frames) -> None:
    """Write a shard; it appears under its name only when it is complete and on disk."""
    tensors = {f"features.{camera}": array for camera, array in frames.features.items()}
    tensors |= {
        "state": frames.state,
        "action": frames.action,
        "episode_index": frames.episode_index,
        "frame_index": frames.frame_index,
    }
    write_atomically(path, save(tensors, metadata={"shard": json.dumps(vars(header))}))


def read_header(path: Path) -> ShardHeader | None:
    """Return what the shard says it holds, or None if it is no readable shard."""
    try:
        with safe_open(path, framework="numpy") as file:
            return ShardHeader(**json.loads(file.metadata()["shard"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def map_shard(path: Path) -> dict[str, torch.Tensor]:
    """Map a shard's tensors into memory; pages are read when they are touched.

    Raises:
        CacheError: the file is missing or is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
    except (OSError, SafetensorError) as error:
        message = f"shard {path} cannot be read ({error}); delete it and run `vla embed` again"
        raise CacheError(message) from error
