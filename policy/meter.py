"""Collect the figures of training steps without waiting for the device."""

import math
import time

import torch
from torch import Tensor

from vla.distributed import World
from vla.errors import VlaError


class Meter:
    """Average figures between log lines.

    Tensors are kept as they are until they are read: reading one would make the host wait for the device
    at every step.

    Args:
        batch_size: windows a step, of all processes together.
        world: the processes; figures are averaged over them.
    """

    def __init__(self, batch_size: int, world: World) -> None:
        self._batch_size, self._world = batch_size, world
        self._tensors: list[dict[str, Tensor]] = []
        self._floats: list[dict[str, float]] = []
        self._began = time.perf_counter()

    def add(self, tensors: dict[str, Tensor], **floats: float) -> None:
        """Add one step's figures."""
        self._tensors.append(tensors)
        self._floats.append(floats)

    def read(self, step: int) -> dict[str, float]:
        """Return the means since the last reading, and forget them.

        Raises:
            VlaError: the loss is not finite.
        """
        means = {
            name: float(torch.stack([row[name] for row in self._tensors]).mean()) for name in self._tensors[0]
        }
        means = self._world.mean(means)
        if not math.isfinite(means["loss"]):
            raise VlaError(
                f"the loss is {means['loss']} before step {step}; the last checkpoint is kept. "
                "Look at the cache (vla inspect) or lower the rate: --set train.lr=1e-4 --resume"
            )
        for name in self._floats[0]:
            means[name] = sum(row[name] for row in self._floats) / len(self._floats)
        now = time.perf_counter()
        means["samples_per_s"] = len(self._floats) * self._batch_size / (now - self._began)
        self._tensors, self._floats, self._began = [], [], now
        return means
