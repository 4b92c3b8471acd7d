"""Statistics of the training episodes alone, to normalise with: held-out episodes are not looked at."""

from collections.abc import Sequence

import torch

from vla.cache import CacheMetadata, FeatureCache
from vla.cache.statistics import vector_statistics


def of_episodes(cache: FeatureCache, episodes: Sequence[int]) -> CacheMetadata:
    """Return a cache's header whose statistics of vectors are those of some of its episodes.

    State, action and vectors of sensors; those of features and larger streams stay as they are, see
    docs/decisions/0017-statistics-of-the-training-episodes.md.

    Args:
        cache: all episodes.
        episodes: positions of those that are trained on.
    """
    header = cache.metadata
    if len(episodes) == len(header.episodes):
        return header
    chosen = [header.episodes[position] for position in episodes]
    frames = torch.cat([torch.arange(e.first_frame, e.first_frame + e.length) for e in chosen])
    vectors = {
        stream.name: vector_statistics(cache.all(stream.name)[frames].numpy())
        for stream in header.streams
        if stream.kind == "vector" and stream.made_by is None
    }
    return header.model_copy(update={"statistics": {**header.statistics, **vectors}})
