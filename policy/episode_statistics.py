"""Statistics of the training episodes alone, to normalise with: held-out episodes are not looked at.

See docs/decisions/0017-statistics-of-the-training-episodes.md.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vla.cache import CacheMetadata, FeatureCache, Statistics
from vla.cache.statistics import vector_statistics


def of_episodes(cache: FeatureCache, episodes: Sequence[int]) -> CacheMetadata:
    """Return a cache's header whose statistics of vectors are those of some of its episodes.

    State, action and vectors of sensors; those of features and larger streams stay as they are.

    Args:
        cache: all episodes.
        episodes: positions of those that are trained on.
    """
    vectors = vectors_of(cache, episodes)
    header = cache.metadata
    return replace(header, statistics={**header.statistics, **vectors}) if vectors else header


def vectors_of(cache: FeatureCache, episodes: Sequence[int]) -> dict[str, Statistics]:
    """Return the statistics of vectors over some episodes; none if these are all."""
    if len(episodes) == len(cache.metadata.episodes):
        return {}
    frames = frames_of(cache, episodes)
    return {
        stream.name: vector_statistics([cache.all(stream.name)[frames].numpy()])
        for stream in cache.metadata.streams
        if stream.kind == "vector" and stream.made_by is None
    }


def frames_of(cache: FeatureCache, episodes: Sequence[int]) -> Int64[Tensor, "frames"]:
    """Return the numbers of all frames of some episodes, given by position."""
    known, chosen = cache.metadata.episodes, np.asarray(episodes)
    lengths = known.length[chosen].astype(np.int64)
    starts = known.first_frame[chosen] - (lengths.cumsum() - lengths)
    return torch.from_numpy(np.arange(lengths.sum()) + np.repeat(starts, lengths))
