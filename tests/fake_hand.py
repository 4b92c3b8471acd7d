"""Caches of an arm whose actions run ahead of its states: position, orientation and gripper of a hand."""

from pathlib import Path
from typing import Any

import torch
from fakes import fake_frames, fake_spec
from torch import Tensor

from vla.cache import CacheWriter, FeatureCache


def poses(*shape: int, seed: int = 0) -> Tensor:
    """Draw positions, unit quaternions and grippers."""
    numbers = torch.randn(*shape, 8, generator=torch.Generator().manual_seed(seed))
    numbers[..., 3:7] /= numbers[..., 3:7].norm(dim=-1, keepdim=True)
    numbers[..., 3:7] *= torch.where(numbers[..., 6:7] < 0, -1, 1)
    return numbers


def arm_cache(folder: Path, seed: int = 0, rests: bool = False) -> FeatureCache:
    """Write a cache of an arm whose actions run ahead of its states; its last number may rest."""
    dataset = fake_spec().dataset.model_copy(update={"content_sha256": f"{seed}" * 64})
    sizes: dict[str, Any] = {"dim": 4, "state_dim": 8, "action_dim": 8, "cameras": ("top",)}
    spec = fake_spec(lengths=(12, 9, 10), dataset=dataset, **sizes)
    writer = CacheWriter(folder, spec)
    for shard in writer.missing_shards():
        arrays = fake_frames(spec, shard, seed)
        frames = len(arrays["state"])
        arrays["state"][:] = poses(frames, seed=10 * seed + shard).numpy()
        arrays["action"][:] = poses(frames, seed=100 + 10 * seed + shard).numpy()
        if rests:
            arrays["action"][:, [0, 7]] = (0.3, 0.7)
        writer.write(shard, arrays)
    writer.finish()
    return FeatureCache(folder)
