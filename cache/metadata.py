"""What a feature cache says of itself: the contents of `cache.json`.

Two caches hold the same features exactly when their fingerprints agree. The fingerprint covers
what decides the features: the dataset's content, the camera order, the encoder's weights, pooling and
arithmetic, the preprocessing. It leaves out what does not: paths, names, machine, batch and shard size.
"""

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from vla.base.strict import StrictModel, Width
from vla.cache.shard import ShardHeader, ShardLayout

FORMAT_VERSION: Final = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]


class Preprocessing(StrictModel):
    """How a uint8 RGB frame becomes encoder input; see `vla.embed.preprocess`."""

    image_size: tuple[Width, Width]
    """Height and width [pixel] that the encoder takes."""
    interpolation: Literal["bilinear-antialias-uint8"] = "bilinear-antialias-uint8"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class Augmentation(StrictModel):
    """How cached variants of a frame differ from it; see `vla.embed.augment`. Also the table `[augment]`."""

    variants: Count = 0
    """Variants of each frame beside the frame itself; 0 is no augmentation."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.04
    """Largest shift, as a share of the image's height and width."""
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Largest relative change of each colour channel's contrast."""
    offset: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest change of each colour channel's brightness, as a share of full scale."""
    seed: Count = 0
    """Of the variants."""


Pooling = Literal["pooled", "mean", "grid2", "grid4", "patches"]


class DatasetIdentity(StrictModel):
    """Which demonstrations were read."""

    path: str
    """As it was given: a directory, or `owner/name` on the Hub."""
    revision: str | None = None
    """Commit on the Hub; None for a directory."""
    format: str
    """For example `lerobot-v3.0`."""
    content_sha256: Sha256
    """Over the relative names and bytes of the files that were read."""
    episodes: tuple[Count, ...] | None = None
    """The episodes that were chosen, by the dataset's own numbers; None is all of them."""
    fps: Annotated[float, Field(gt=0)]
    state_key: str
    action_key: str


class EncoderIdentity(StrictModel):
    """Which encoder made the features."""

    id: str
    """Hub id, directory or built-in name, as it was given."""
    revision: str | None
    """Commit on the Hub; None for a directory or a built-in encoder."""
    weights_sha256: Sha256
    """Over the vision tower's architecture and its tensors in float32, whatever file they came in."""
    pooling: Pooling
    """What is kept of a view: `pooled`, the checkpoint's attention pooling (`pooler_output`); `mean` of
    all patch tokens; `grid2` or `grid4`, means over 2x2 or 4x4 cells; or all `patches`."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Arithmetic of the forward pass; features are stored in float16 in any case."""
    feature_dim: Width
    tokens: Width
    """Vectors a view; 1 for pooled features."""

    def describe(self) -> str:
        """Name the encoder so that two different ones never read the same."""
        return f"{self.id} (weights {self.weights_sha256[:12]}, {self.pooling}, {self.dtype})"


class TextIdentity(StrictModel):
    """Which text tower made the features of task texts."""

    weights_sha256: Sha256
    """Over its architecture, its tensors in float32, and what its tokeniser does."""
    feature_dim: Width
    max_length: Width
    """Tokens of a text; what is longer is cut off."""


class Episode(StrictModel):
    """One demonstration: a run of consecutive frames."""

    index: Count
    length: PositiveInt
    first_frame: Count
    task: str


class VectorStatistics(StrictModel):
    """Per dimension, over all frames, in the dataset's units."""

    min: tuple[float, ...]
    max: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    count: Count


class FeatureStatistics(StrictModel):
    """Per feature dimension, over all frames, variants and tokens of one camera."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Shard(StrictModel):
    """One file of consecutive frames."""

    file: Annotated[str, Field(pattern=r"^shards/[0-9]{5,}\.safetensors$")]
    frames: PositiveInt
    sha256: Sha256


class Language(StrictModel):
    """The features of the task texts, in `language.safetensors`; see `vla.cache.texts`."""

    encoder: TextIdentity
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """The different texts in order of appearance: row k of the features is text k."""
    sha256: Sha256
    """Of the file's bytes."""


class CacheMetadata(StrictModel):
    """The whole of `cache.json`."""

    format_version: Literal[1]
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    dataset: DatasetIdentity
    encoder: EncoderIdentity
    preprocessing: Preprocessing
    camera_names: Annotated[tuple[str, ...], Field(min_length=1)]
    augmentation: Augmentation
    """Every frame has 1 + `augmentation.variants` variants; the first is the frame itself."""
    state_dim: Width
    action_dim: Width
    num_frames: PositiveInt
    frames_per_shard: PositiveInt
    episodes: Annotated[tuple[Episode, ...], Field(min_length=1)]
    state_statistics: VectorStatistics
    action_statistics: VectorStatistics
    feature_statistics: dict[str, FeatureStatistics]
    shards: tuple[Shard, ...]
    language: Language | None = None
    """Only where it was asked for. Not part of the fingerprint: it changes no feature of an image."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The different task texts of the episodes, in order of appearance."""
        return tuple(dict.fromkeys(episode.task for episode in self.episodes))

    def to_json(self) -> dict[str, Any]:
        """Return the contents of `cache.json`; without `language` they are those that they always were."""
        return self.model_dump(mode="json", exclude=None if self.language else {"language"})

    def layout(self, shard: int) -> ShardLayout:
        """Return what the file of a shard must hold."""
        first = shard * self.frames_per_shard
        header = ShardHeader(
            fingerprint=self.fingerprint, first_frame=first, frames=self.shards[shard].frames
        )
        encoder = self.encoder
        shape = (1 + self.augmentation.variants, encoder.tokens, encoder.feature_dim)
        return ShardLayout.planned(header, self.camera_names, shape, self.state_dim, self.action_dim)


def fingerprint(
    dataset: DatasetIdentity,
    encoder: EncoderIdentity,
    preprocessing: Preprocessing,
    camera_names: tuple[str, ...],
    augmentation: Augmentation,
) -> str:
    """Return 12 hexadecimal digits that change whenever the features would."""
    content = {
        "format_version": FORMAT_VERSION,
        "dataset": [dataset.content_sha256, dataset.state_key, dataset.action_key, dataset.episodes],
        "encoder": [encoder.weights_sha256, encoder.pooling, encoder.dtype],
        "preprocessing": preprocessing.model_dump(mode="json"),
        "camera_names": list(camera_names),
        "augmentation": augmentation.model_dump(mode="json") if augmentation.variants else None,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
