"""Read the header of a cache of format 1, which knew SigLIP features of RGB cameras and nothing else.

Its shards are read as they are, its header becomes one of format 3 in memory: features are streams of kind
tokens, written by a SigLIP encoder. Nothing is encoded, and no file is changed.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from vla.base.strict import StrictModel, Width
from vla.cache.episodes import Count, Episodes
from vla.cache.metadata import (
    Augmentation,
    CacheMetadata,
    DatasetIdentity,
    EncoderIdentity,
    Floats,
    Sha256,
    Statistics,
    Texts,
)
from vla.cache.stream import ACTION, STATE, Stream
from vla.cache.version2 import Listing, old_header_problems, the_only_part

IMAGES = {"hdf5-act": "observations/images/"}
"""Where a camera lies in the dataset, by its format; else as LeRobot has it."""
LEROBOT_IMAGES = "observation.images."


class _Dataset(StrictModel):
    path: str
    revision: str | None = None
    format: str
    content_sha256: Sha256
    episodes: tuple[Count, ...] | None = None
    fps: Annotated[float, Field(gt=0)]
    state_key: str
    action_key: str


class _Encoder(StrictModel):
    id: str
    revision: str | None
    weights_sha256: Sha256
    pooling: Literal["pooled", "mean", "grid2", "grid4", "patches"]
    dtype: Literal["float32", "bfloat16", "float16"]
    feature_dim: Width
    tokens: Width


class _Preprocessing(StrictModel):
    image_size: tuple[Width, Width]
    interpolation: Literal["bilinear-antialias-uint8"] = "bilinear-antialias-uint8"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class _Vector(StrictModel):
    min: Floats
    max: Floats
    mean: Floats
    std: Floats
    q01: Floats
    q99: Floats
    count: Count


class _Features(StrictModel):
    mean: Floats
    std: Floats


class Header(Listing):
    """The whole of `cache.json`, format 1."""

    format_version: Literal[1]
    dataset: _Dataset
    encoder: _Encoder
    preprocessing: _Preprocessing
    camera_names: Annotated[tuple[str, ...], Field(min_length=1)]
    state_dim: Width
    action_dim: Width
    state_statistics: _Vector
    action_statistics: _Vector
    feature_statistics: dict[str, _Features]
    language: Texts | None = None

    def metadata(self) -> CacheMetadata:
        """Say the same in the words of format 3."""
        encoder = encoder_identity(self.encoder.model_dump(), self.preprocessing.model_dump(mode="json"))
        shape = (self.encoder.tokens, self.encoder.feature_dim)
        values = self.num_frames * (1 + self.augmentation.variants) * self.encoder.tokens
        made = self.dataset
        keys = dataset_keys(made.format, self.camera_names, made.state_key, made.action_key)
        vectors = {STATE: self.state_dim, ACTION: self.action_dim}
        dataset = made.model_dump(exclude={"state_key", "action_key"})
        return CacheMetadata(
            format_version=1,
            recipe="",
            fingerprint=self.fingerprint,
            dataset=DatasetIdentity(**dataset, keys=keys),
            streams=(
                *(
                    Stream(name=name, kind="tokens", dtype="float16", shape=shape, made_by=encoder.digest)
                    for name in self.camera_names
                ),
                *(
                    Stream(name=name, kind="vector", dtype="float32", shape=(dim,), key=keys[name])
                    for name, dim in vectors.items()
                ),
            ),
            encoders={encoder.digest: encoder},
            statistics={
                **{
                    name: Statistics(count=values, mean=found.mean, std=found.std)
                    for name, found in self.feature_statistics.items()
                },
                STATE: Statistics(**self.state_statistics.model_dump()),
                ACTION: Statistics(**self.action_statistics.model_dump()),
            },
            texts=self.language,
            augmentation=self.augmentation,
            episodes=Episodes.of(self.episodes),
            parts=(the_only_part(self.fingerprint, self.num_frames, self.frames_per_shard, self.shards),),
        )

    def problems(self, metadata: CacheMetadata) -> Iterator[str]:
        """Say in words where the header contradicts itself."""
        assert metadata.encoder is not None
        due = fingerprint(metadata.dataset, metadata.encoder, metadata.encoded, metadata.augmentation)
        yield from old_header_problems(self, due)


def encoder_identity(encoder: dict[str, Any], preprocessing: dict[str, Any]) -> EncoderIdentity:
    """Say in today's words which SigLIP encoder a cache or a policy of format 1 names."""
    return EncoderIdentity(
        type="siglip",
        id=encoder["id"],
        revision=encoder["revision"],
        weights_sha256=encoder["weights_sha256"],
        dtype=encoder["dtype"],
        settings={"pooling": encoder["pooling"], **preprocessing},
    )


def dataset_keys(format: str, cameras: tuple[str, ...], state: str, action: str) -> dict[str, str]:
    """Return the dataset's own name of each stream."""
    prefix = IMAGES.get(format, LEROBOT_IMAGES)
    return {**{camera: f"{prefix}{camera}" for camera in cameras}, STATE: state, ACTION: action}


def fingerprint(
    dataset: DatasetIdentity, encoder: EncoderIdentity, cameras: tuple[str, ...], augmentation: Augmentation
) -> str:
    """Return the fingerprint that format 1 gave a cache; its folder is named by it."""
    preprocessing = {key: value for key, value in encoder.settings.items() if key != "pooling"}
    content = {
        "format_version": 1,
        "dataset": [dataset.content_sha256, dataset.keys[STATE], dataset.keys[ACTION], dataset.episodes],
        "encoder": [encoder.weights_sha256, encoder.settings["pooling"], encoder.dtype],
        "preprocessing": preprocessing,
        "camera_names": list(cameras),
        "augmentation": augmentation.model_dump(mode="json") if augmentation.variants else None,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
