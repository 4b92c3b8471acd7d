"""The feature cache on disk: format, writer, reader, statistics. Knows no encoder and no policy.

The format is described for strangers in docs/cache-format.md.
"""

from vla.cache.cache_config import CacheConfig
from vla.cache.metadata import (
    Augmentation,
    CacheMetadata,
    DatasetIdentity,
    EncoderIdentity,
    Episode,
    FeatureStatistics,
    Language,
    Preprocessing,
    TextIdentity,
    VectorStatistics,
)
from vla.cache.reader import FeatureCache
from vla.cache.shard import Frames
from vla.cache.writer import CacheSpec, CacheWriter

__all__ = [
    "Augmentation",
    "CacheConfig",
    "CacheMetadata",
    "CacheSpec",
    "CacheWriter",
    "DatasetIdentity",
    "EncoderIdentity",
    "Episode",
    "FeatureCache",
    "FeatureStatistics",
    "Frames",
    "Language",
    "Preprocessing",
    "TextIdentity",
    "VectorStatistics",
]
