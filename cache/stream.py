"""The one vocabulary: what is known of an instant is an observation, a dictionary of streams by name.

    name      top, wrist, lidar, imu, state, action, task …: the same in datasets, caches, policies and robots
    kind      image    uint8  [height, width, 3]   RGB in [0, 255]
              tokens   float  [tokens, dim]        vectors that an encoder wrote of an image, or of several
              vector   float  [dim]                state, action, the feature of a text
              points   float  [points, channels]   a scan: lidar, radar
              series   float  [time, channels]     samples since the last frame: inertia, force, sound
              depth    float  [height, width, 1]   distances, in the units of the dataset
    dtype     of the stored array
    shape     of one frame; a camera whose dataset promises no size has 0 for height and width
    key       the dataset's own name of it, such as `observation.state`; empty for what an encoder wrote
    made_by   the digest of the encoder that wrote it; None for what the dataset holds
    jpeg_quality   of images that shards keep as JPEG files, see `vla.cache.jpeg`; None for plain arrays

Arrays have leading axes: [frames] in a shard, [frames, variants] where a stream was computed from images,
[batch, obs_horizon] in a training batch and for a live policy.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from pydantic import Field, model_serializer, model_validator

from vla.base.strict import StrictModel

STATE: Final = "state"
ACTION: Final = "action"
TASK: Final = "task"
"""The feature of the instruction; no camera or sensor may have one of these names."""

Kind = Literal["image", "tokens", "vector", "points", "series", "depth"]
DType = Literal["uint8", "float16", "float32"]
Size = Annotated[int, Field(ge=0, le=1 << 24)]
Observation = Mapping[str, Any]
"""Arrays or tensors by stream name, with equal leading axes."""


class Stream(StrictModel):
    """One named array a frame."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Kind
    dtype: DType
    shape: Annotated[tuple[Size, ...], Field(min_length=1, max_length=3)]
    key: str = ""
    made_by: str | None = None
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: Callable[["Stream"], dict[str, Any]]) -> dict[str, Any]:
        """Leave out what most streams are not: recipes are made of this text, and older ones lack the key."""
        said = handler(self)
        if self.jpeg_quality is None:
            said.pop("jpeg_quality", None)
        return said

    @model_validator(mode="after")
    def _jpeg_is_of_images(self) -> "Stream":
        if self.jpeg_quality and (self.kind, self.dtype, self.made_by is None) != ("image", "uint8", False):
            raise ValueError(f"stream '{self.name}' has a jpeg_quality and is no image that an encoder wrote")
        return self

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def channels(self) -> int:
        """Length of the last axis: what statistics are kept of."""
        return self.shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes of one frame."""
        return math.prod(self.shape) * self.numpy_dtype.itemsize

    def describe(self) -> str:
        """Name it for people: `lidar (points, float32 [64, 4])`."""
        kept = f", JPEG {self.jpeg_quality}" if self.jpeg_quality else ""
        return f"{self.name} ({self.kind}, {self.dtype} {list(self.shape)}{kept})"
