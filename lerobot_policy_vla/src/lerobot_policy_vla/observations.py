"""From LeRobot's batches to streams by name.

a batch   {"observation.images.top": float [B, 3, h, w] in [0, 1], or uint8,
           "observation.state": float [B, S], "observation.lidar": float [B, ...], "task": [text] * B, …}
streams   {"top": uint8 [B, h, w, 3], "state": float32 [B, S], "lidar": float32 [B, ...]}
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla.base.errors import ConfigError, EnvironmentSetupError
from vla.cache.stream import Stream


def to_streams(
    batch: Mapping[str, Any], observes: Sequence[Stream], names: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return what a policy observes of a batch.

    Args:
        batch: of LeRobot, of one instant.
        observes: the streams of the policy.
        names: what LeRobot calls each.

    Raises:
        EnvironmentSetupError: one is missing, or of another form.
    """
    streams = {}
    for stream in observes:
        name = names[stream.name]
        if name not in batch:
            there = [key for key in batch if key.startswith("observation.")]
            raise EnvironmentSetupError(
                f"the policy observes {name}, found: {', '.join(there) or 'nothing'}; if one is meant: "
                f"""--rename_map='{{"FOUND": "{name}"}}'"""
            )
        streams[stream.name] = (
            _image(batch[name], name) if stream.kind == "image" else _numbers(batch[name], name, stream)
        )
    return streams


def task_of(batch: Mapping[str, Any]) -> str:
    """Return the one task text of a batch; empty if there is none.

    Raises:
        ConfigError: there are several.
    """
    told = batch.get("task") or ""
    texts = sorted({told} if isinstance(told, str) else set(told))
    if len(texts) > 1:
        raise ConfigError(
            f"a batch must have one task, found {len(texts)}: '{texts[0]:.80}', '{texts[1]:.80}'; "
            "evaluate one task at a time"
        )
    return texts[0] if texts else ""


def _image(value: Tensor, name: str) -> np.ndarray:
    if value.ndim != 4 or value.shape[1] != 3:
        raise EnvironmentSetupError(f"{name} must be RGB images [B, 3, h, w], found {list(value.shape)}")
    if value.dtype != torch.uint8:
        low, high = (float(bound) for bound in value.aminmax())
        if not (low >= 0 and high <= 1):
            raise EnvironmentSetupError(f"{name} must be in [0, 1], found values from {low:g} to {high:g}")
        value = (value * 255).round().to(torch.uint8)
    return value.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _numbers(value: Tensor, name: str, stream: Stream) -> np.ndarray:
    if value.shape[1:] != stream.shape:
        raise EnvironmentSetupError(
            f"the policy observes {name} of shape {list(stream.shape)}, found {list(value.shape[1:])}; "
            "it was trained with another robot"
        )
    return value.float().cpu().numpy()
