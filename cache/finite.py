"""Find values of a shard that are NaN or infinite, by camera, episode and frame."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def values_not_finite(shard: Mapping[str, Tensor]) -> Iterator[str]:
    """Name the first frame of each tensor that has such a value."""
    for name, tensor in shard.items():
        if not tensor.is_floating_point():
            continue
        bad = ~torch.isfinite(tensor.flatten(1)).all(1)
        if bad.any():
            row = int(bad.int().argmax())
            what = f"camera '{name.removeprefix('features.')}'" if name.startswith("features.") else name
            at = f"episode {int(shard['episode_index'][row])}, frame {int(shard['frame_index'][row])}"
            yield f"{what} is not finite at {at}"
