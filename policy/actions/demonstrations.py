"""All windows that a policy is trained on, cut in blocks: what statistics of chunks are computed from."""

import math
from collections.abc import Iterator, Mapping

import torch

from vla.base.horizons import Horizons
from vla.cache import STATE, FeatureCache
from vla.policy.batch import Batch
from vla.policy.mixture import AnyCache, Mixture
from vla.policy.windows import Windows, split_episodes

CPU = torch.device("cpu")
BLOCK = 16_384
"""Windows at a time: a few tens of MB for a chunk of 16 actions."""


class Demonstrations:
    """The actions and states of the episodes that are trained on; read when they are asked for.

    Args:
        cache: one, or a mixture.
        val_episodes: held out of each.
        horizons: of the policy.
    """

    def __init__(self, cache: AnyCache, val_episodes: int, horizons: Horizons) -> None:
        self._cache, self._val_episodes, self._horizons = cache, val_episodes, horizons

    def blocks(self, most: int = 0) -> Iterator[Batch]:
        """Yield windows in order, with the state where there is one.

        Args:
            most: of each cache, evenly spread; 0 is all.
        """
        if isinstance(self._cache, Mixture):
            for member in self._cache.members:
                yield from self._of_one(member.cache, member.calls, most)
        else:
            yield from self._of_one(self._cache, {}, most)

    def _of_one(self, cache: FeatureCache, calls: Mapping[str, str], most: int) -> Iterator[Batch]:
        state = cache.streams.get(calls.get(STATE, STATE))
        seen = [state.model_copy(update={"name": STATE})] if state else []
        windows = Windows(cache, self._horizons, seen, device=CPU, resident=True, calls=calls)
        training, _ = split_episodes(len(cache.metadata.episodes), self._val_episodes)
        numbered = windows.numbering(training)
        spread = max(1, math.ceil(len(numbered) / most)) if most else 1
        for numbers in torch.arange(0, len(numbered), spread).split(BLOCK):
            yield windows.batch(numbered.frames(numbers))
