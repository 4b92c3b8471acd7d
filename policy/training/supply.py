"""What a run trains and validates on: windows of one cache or several, in which order, and those held out."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from vla.policy.agents.policy import Policy
from vla.policy.episode_statistics import of_episodes
from vla.policy.mixed_windows import MixedWindows
from vla.policy.mixture import AnyCache, AnyMetadata, Member, Mixture
from vla.policy.training.sampling import EpochSampler, MixtureSampler, Sampler
from vla.policy.training.train_config import TrainConfig
from vla.policy.windows import Windows, split_episodes

MAX_LISTED = 1 << 27
"""Windows of one cache whose order is drawn as a list, 1 GiB at most; of more it is computed by place."""


@dataclass(frozen=True)
class HeldOut:
    """Windows to validate on."""

    cache: str
    """Its name in a mixture; empty where there is one cache."""
    weight: float
    """Of its figures in those of all."""
    windows: Windows
    current: Int64[Tensor, "windows"]
    """Current frames."""


def of_training(cache: AnyCache, val_episodes: int) -> tuple[AnyCache, AnyMetadata]:
    """Return a cache, and what it says of itself, with statistics of the episodes that are trained on.

    Raises:
        ConfigError: the held-out episodes leave nothing to train on.
    """
    if isinstance(cache, Mixture):
        chosen = [_split(member, val_episodes)[0] for member in cache.members]
        found = cache.of_episodes(chosen)
        return found, found.metadata
    training, _ = split_episodes(len(cache.metadata.episodes), val_episodes)
    return cache, of_episodes(cache, training)


def _split(member: Member, val_episodes: int) -> tuple[list[int], list[int]]:
    return split_episodes(len(member.cache.metadata.episodes), val_episodes, f" of cache {member.name}")


class Supply:
    """Windows for training and validation.

    Args:
        cache: one, or a mixture; of each, `val_episodes` are held out.
        policy: says what is cut.
        config: the run.
        device: where batches are wanted.
        resident: hold all streams on the device.

    Attributes:
        windows: cuts batches.
        sampler: draws their current frames.
        held_out: of each cache.

    Raises:
        ConfigError: the held-out episodes leave nothing to train on.
    """

    windows: Windows | MixedWindows
    sampler: Sampler

    def __init__(
        self, cache: AnyCache, policy: Policy, config: TrainConfig, device: torch.device, resident: bool
    ) -> None:
        how: dict[str, Any] = {"device": device, "resident": resident, "texts": bool(policy.tasks)}
        how["read"] = policy.read_tasks
        size, seed = config.batch_size, config.seed
        if not isinstance(cache, Mixture):
            training, held_out = split_episodes(len(cache.metadata.episodes), config.val_episodes)
            windows = Windows(cache, policy.horizons, policy.observes, **how)
            self.windows, numbered = windows, windows.numbering(training)
            if len(numbered) < MAX_LISTED:
                self.sampler = EpochSampler(windows.frames_of(training), size, seed)
            else:
                self.sampler = MixtureSampler([numbered], [1], size, seed)
            self.held_out = [HeldOut("", 1.0, windows, windows.frames_of(held_out))]
            return
        mixed = MixedWindows(cache, policy.horizons, policy.observes, **how)
        self.windows, self.held_out, shares = mixed, [], [member.share for member in cache.members]
        numberings = []
        for number, member in enumerate(cache.members):
            windows = mixed.members[member.name]
            training, held_out = _split(member, config.val_episodes)
            numberings.append(mixed.numbering(number, training))
            share = member.share / sum(shares)
            self.held_out.append(HeldOut(member.name, share, windows, windows.frames_of(held_out)))
        self.sampler = MixtureSampler(numberings, shares, size, seed)
