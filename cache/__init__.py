"""The cache on disk: streams, header, shards; writing, reading, checking. Knows no encoder and no policy.

docs/cache-format.md describes the format, well enough to write a reader in another language.
"""

from vla.cache.episodes import Episode, Episodes
from vla.cache.metadata import (
    Augmentation,
    CacheMetadata,
    DatasetIdentity,
    EncoderIdentity,
    Statistics,
    TextIdentity,
    Texts,
)
from vla.cache.reader import FeatureCache
from vla.cache.stream import ACTION, STATE, TASK, Observation, Stream
from vla.cache.writer import CacheConfig, CacheSpec, CacheWriter

__all__ = [
    "ACTION",
    "STATE",
    "TASK",
    "Augmentation",
    "CacheConfig",
    "CacheMetadata",
    "CacheSpec",
    "CacheWriter",
    "DatasetIdentity",
    "EncoderIdentity",
    "Episode",
    "Episodes",
    "FeatureCache",
    "Observation",
    "Statistics",
    "Stream",
    "TextIdentity",
    "Texts",
]
