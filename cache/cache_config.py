"""Configuration of the feature cache: table `[cache]`."""

from typing import Annotated

from pydantic import Field

from vla.base.strict import StrictModel


class CacheConfig(StrictModel):
    """Where features are written and read."""

    path: str = "data/features"
    """A folder of caches, or one cache; `vla embed` makes <path>/<dataset>-<encoder>-<fingerprint>."""
    shard_frames: Annotated[int, Field(ge=1)] = 4096
    """Frames a shard at most; an interrupted run redoes at most one shard."""
