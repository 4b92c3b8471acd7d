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
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vla.base.errors import CacheError
from vla.base.files import write_atomically


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


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """All that a shard says of itself before a tensor is read."""

    header: ShardHeader
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    """Of each tensor its safetensors dtype and its shape."""

    @classmethod
    def planned(
        cls,
        header: ShardHeader,
        camera_names: Sequence[str],
        feature_shape: tuple[int, int, int],
        state_dim: int,
        action_dim: int,
    ) -> "ShardLayout":
        """Return the layout that a shard must have; `feature_shape` is (variants, tokens, dim)."""
        n = header.frames
        tensors: dict[str, tuple[str, tuple[int, ...]]]
        tensors = {f"features.{camera}": ("F16", (n, *feature_shape)) for camera in camera_names}
        tensors |= {"state": ("F32", (n, state_dim)), "action": ("F32", (n, action_dim))}
        tensors |= {"episode_index": ("I32", (n,)), "frame_index": ("I32", (n,))}
        return cls(header=header, tensors=tensors)

    def difference(self, planned: "ShardLayout") -> str | None:
        """Say in words how this layout differs from the planned one; None if it does not."""
        found, due = self.header, planned.header
        if found.fingerprint != due.fingerprint:
            return f"belongs to cache {found.fingerprint}, this one is {due.fingerprint}"
        if found != due:
            return (
                f"holds {found.frames} frames from frame {found.first_frame} on, "
                f"not {due.frames} from {due.first_frame}"
            )
        for name, (dtype, shape) in planned.tensors.items():
            if name not in self.tensors:
                return f"has no tensor '{name}'"
            if self.tensors[name] != (dtype, shape):
                kind, size = self.tensors[name]
                return f"has '{name}' as {kind} {list(size)}, not {dtype} {list(shape)}"
        extra = sorted(self.tensors.keys() - planned.tensors.keys())
        return f"has a tensor '{extra[0]}' that no cache has" if extra else None


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


def read_layout(path: Path) -> ShardLayout:
    """Read what a shard says it holds; sizes are held against the file's before memory is taken.

    Raises:
        CacheError: it is missing, cut short, or no shard; the message starts with what it is.
    """
    if not path.is_file():
        raise CacheError("is missing")
    try:
        with safe_open(path, framework="numpy") as file:
            header = ShardHeader(**json.loads(file.metadata()["shard"]))
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 not a dict
            tensors = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        # safetensors compares the sizes that its header claims with the file's.
        raise CacheError(f"is cut short or no safetensors file ({error})") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CacheError("has no entry 'shard' in its header that says what it holds") from error
    return ShardLayout(header=header, tensors=tensors)


def damage(path: Path, planned: ShardLayout) -> str | None:
    """Say what is wrong with a shard, as far as its header and size tell; None if nothing is."""
    try:
        return read_layout(path).difference(planned)
    except CacheError as error:
        return str(error)


def map_shard(path: Path, planned: ShardLayout) -> dict[str, torch.Tensor]:
    """Map a shard's tensors into memory; pages are read when they are touched.

    Raises:
        CacheError: the file is missing, damaged, or not the shard that was planned.
    """
    wrong = damage(path, planned)
    if wrong is not None:
        raise CacheError(f"shard {path} {wrong}; {repair_hint(path.parents[1])}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in planned.tensors}
    except (OSError, SafetensorError) as error:
        raise CacheError(f"shard {path} cannot be read ({error}); {repair_hint(path.parents[1])}") from error


def repair_command(folder: Path) -> str:
    """Return the command that makes a cache whole again; it encodes what is missing or damaged, no more."""
    made_by = folder / "pipeline.toml"
    options = ["--config", str(made_by), "--out", str(folder.parent)] if made_by.is_file() else []
    return shlex.join(["vla", "embed", *options])


def repair_hint(folder: Path) -> str:
    """Say how to mend a cache, as the end of a message."""
    return f"mend it, only damaged shards are encoded again: {repair_command(folder)}"
