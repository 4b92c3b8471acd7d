"""Clips of demonstrations: some instants, a few frames apart, and all actions between them.

    frames   f      f+5     f+10    f+15        history = 3, frameskip = 5
    actions  f..f+4 f+5..9  f+10..14

A clip lies within an episode: nothing is repeated at its borders.

B clips, T = history + 1 instants, A action size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vla.base.errors import ConfigError
from vla.cache import ACTION, FeatureCache
from vla.policy.pretrain.pretrain_config import PretrainConfig


@dataclass(frozen=True)
class Clips:
    """A batch of them, on the training device."""

    views: list[UInt8[Tensor, "B T h w 3"]]
    """Of each camera, in order."""
    actions: Float[Tensor, "B history frames A"]
    """From each instant to the next, in the robot's units."""


class ClipCutter:
    """Cuts clips of a cache of frames.

    Args:
        cache: of `vla embed --encoder pixels`.
        cameras: whose views, in order.
        config: how long clips are.
        device: where they are wanted.
    """

    def __init__(
        self, cache: FeatureCache, cameras: Sequence[str], config: PretrainConfig, device: torch.device
    ) -> None:
        self._cache, self._cameras, self._device = cache, tuple(cameras), device
        self._instants = torch.tensor(config.instants)
        self._between = torch.arange(config.history * config.frameskip).unflatten(0, (config.history, -1))
        self._action = cache.all(ACTION).float()
        self._episodes, self._span = cache.metadata.episodes, config.instants[-1]
        cache.expect_random_reads()

    def starts(self, episodes: Sequence[int]) -> Int64[Tensor, "clips"]:
        """Return the first frames of all clips of some episodes, given by position in the cache.

        Raises:
            ConfigError: none of them is long enough for one.
        """
        first, length = self._episodes.first_frame, self._episodes.length
        found = [np.arange(first[k], first[k] + length[k] - self._span) for k in episodes]
        starts = torch.from_numpy(np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int64))
        if episodes and not len(starts):
            longest = max(int(length[k]) for k in episodes)
            raise ConfigError(
                f"a clip takes {self._span + 1} frames, and the longest of {len(episodes)} episodes has "
                f"{longest}; set pretrain.frameskip or pretrain.history lower"
            )
        return starts

    def cut(self, starts: Int64[Tensor, "B"]) -> Clips:
        """Read clips with these first frames."""
        frames = starts[:, None] + self._instants
        views = []
        for camera in self._cameras:
            rows = self._cache.rows(camera, frames.flatten()).unflatten(0, tuple(frames.shape))
            rows = rows.pin_memory() if self._device.type == "cuda" else rows
            views.append(rows.to(self._device, non_blocking=True))
        actions = self._action[starts[:, None, None] + self._between]
        return Clips(views, actions.to(self._device))

    def batches(self, starts: Int64[Tensor, "clips"], size: int) -> Iterator[Clips]:
        """Cut all clips of a list, one batch after the other."""
        for part in starts.split(size):
            yield self.cut(part)
