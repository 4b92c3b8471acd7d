"""What a feature cache says of itself: the contents of `cache.json`, format 3, and of its table of episodes.

A cache is a list of episodes and the immutable parts where they lie. Two names tell caches apart:

    recipe        what decides values apart from the demonstrations: of each stream its name, kind, type,
                  shape and origin, that is the dataset's column or the encoder with its weights, arithmetic
                  and settings; augmentation, frames a second. It stays when a dataset grows, and
                  folders end in it
    fingerprint   the recipe and the content of the listed episodes, in order: two caches hold the same values
                  exactly when their fingerprints agree. Policies note it

Neither covers what changes no value: paths, names, machine, batch and shard size, how episodes are
numbered, which files and parts they lie in.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, JsonValue

from vla.base.strict import StrictModel, Width
from vla.cache.episodes import Count, Episodes
from vla.cache.shard import ShardHeader, ShardLayout
from vla.cache.stream import ACTION, STATE, Stream

FORMAT_VERSION: Final = 3

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PositiveInt = Annotated[int, Field(ge=1)]
Floats = tuple[float, ...]


class Augmentation(StrictModel):
    """How cached variants of a frame differ from it: table `[augment]`; see `vla.embed.transforms`."""

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


class DatasetIdentity(StrictModel):
    """Which demonstrations were read."""

    path: str
    """As it was given: a directory, or `owner/name` on the Hub."""
    revision: str | None = None
    """Commit on the Hub; None for a directory."""
    format: str
    """For example `lerobot-v3.0`."""
    content_sha256: Sha256
    """Over what the episodes hold and their task texts, in order; in formats 1 and 2 over names and bytes of
    files."""
    episodes: tuple[Count, ...] | None = None
    """The episodes that were chosen, by the dataset's own numbers; None is all of them."""
    fps: Annotated[float, Field(gt=0)]
    keys: dict[str, str]
    """The dataset's own name of each stream that was read: cameras in their order, sensors, state, action."""


class EncoderIdentity(StrictModel):
    """Which encoder wrote a stream."""

    type: str
    """Of the family of encoders: siglip, pixels, …"""
    id: str
    """Hub id, directory or built-in name, as it was given."""
    revision: str | None = None
    """Commit on the Hub; None elsewhere."""
    weights_sha256: Sha256 | None
    """Over its architecture and its tensors in float32, whatever file they came in; None for one without."""
    dtype: Literal["float32", "bfloat16", "float16", "uint8"]
    """Arithmetic of the forward pass."""
    reads: tuple[str, ...] = ()
    """Cameras that it sees together, in this order; empty for one that encodes each view by itself."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """What else decides its numbers, in its own words: what is kept of a view, image size, mean …"""

    @property
    def digest(self) -> str:
        """Name it by what decides its numbers, 12 hexadecimal digits."""
        return digest_of(self.model_dump(mode="json", exclude={"id", "revision"}))

    def same_as(self, other: "EncoderIdentity", *, arithmetic: bool = False) -> bool:
        """Tell whether another one writes the same streams.

        Args:
            other: say, the one that is at hand.
            arithmetic: also in the same arithmetic, down to the last digits.
        """
        names = {"id", "revision"} | (set() if arithmetic else {"dtype"})
        return self.model_dump(exclude=names) == other.model_dump(exclude=names)

    def describe(self) -> str:
        """Name the encoder so that two different ones never read the same."""
        weights = [f"weights {self.weights_sha256[:12]}"] if self.weights_sha256 else []
        settings = [f"{key} {json.dumps(value)}" for key, value in sorted(self.settings.items())]
        seen = [f"reads {' + '.join(self.reads)}"] if self.reads else []
        return f"{self.id} ({', '.join([self.type, *weights, self.dtype, *seen, *settings])})"


class TextIdentity(StrictModel):
    """Which text encoder made the features of task texts; equal ones make the same, wherever they lie."""

    type: str = "siglip"
    """Of the family; what was written before there was one is SigLIP's."""
    id: str = ""
    """Where it was loaded from; empty is the encoder's own checkpoint. It decides nothing."""
    weights_sha256: Sha256
    """Over its architecture, its tensors in float32, and what its tokeniser does."""
    feature_dim: Width
    max_length: Width
    """Tokens of a text; what is longer is cut off."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextIdentity) and self._decides() == other._decides()

    def __hash__(self) -> int:
        return hash(self._decides())

    def _decides(self) -> tuple[object, ...]:
        return self.type, self.weights_sha256, self.feature_dim, self.max_length


class Statistics(StrictModel):
    """Of one stream per channel, over all frames, variants and whatever lies between; in the data's units."""

    count: Count
    """Values of a channel."""
    mean: Floats
    std: Floats
    min: Floats | None = None
    max: Floats | None = None
    q01: Floats | None = None
    """1 % quantile; of vectors only, as is `q99`."""
    q99: Floats | None = None


class Texts(StrictModel):
    """The features of the task texts, in a file of their own; see `vla.cache.texts`."""

    encoder: TextIdentity
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """The different texts in order of appearance: row k of the features is text k."""
    sha256: Sha256
    """Of the file's bytes."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Episodes that were written together, and never change."""

    id: str
    """12 hexadecimal digits over the recipe and the contents of its episodes; shards name it."""
    folder: str
    """Relative to the cache."""
    frames: int
    episodes: int
    frames_per_shard: int
    checksums: tuple[str, ...] | None = None
    """Of each shard, in formats 1 and 2; format 3 has them in a table beside the shards."""

    @property
    def num_shards(self) -> int:
        return -(-self.frames // self.frames_per_shard)

    def frame_range(self, shard: int) -> range:
        """Frames of a shard, counted within the part."""
        first = shard * self.frames_per_shard
        return range(first, min(first + self.frames_per_shard, self.frames))

    def file(self, shard: int) -> str:
        """Name the file of a shard, relative to the cache."""
        name = f"shards/{shard:05d}.safetensors"
        return name if self.folder == "." else f"{self.folder}/{name}"


@dataclass(frozen=True, kw_only=True)
class CacheMetadata:
    """What a cache holds, whatever format it is in."""

    format_version: int
    """1 and 2 are read by `vla.cache.version1` and `version2`; what is written is 3."""
    recipe: str
    fingerprint: str
    dataset: DatasetIdentity
    streams: tuple[Stream, ...]
    """In the order in which a policy concatenates them: what encoders wrote, sensors, state, action."""
    encoders: dict[str, EncoderIdentity]
    """By their digests, which streams name."""
    augmentation: Augmentation
    """What encoders wrote has 1 + `augmentation.variants` variants a frame; the first is the frame itself."""
    episodes: Episodes
    parts: tuple[Part, ...]
    statistics: dict[str, Statistics]
    """Of each stream, over the frames of the listed episodes."""
    texts: Texts | None = None
    """Only where it was asked for. Not part of the fingerprint: it changes no stream."""

    @property
    def num_frames(self) -> int:
        return self.episodes.num_frames

    @property
    def variants(self) -> int:
        """Variants of each frame, the frame itself among them."""
        return 1 + self.augmentation.variants

    @property
    def tasks(self) -> tuple[str, ...]:
        """The different task texts of the episodes, in order of appearance."""
        return self.episodes.tasks

    @property
    def encoder(self) -> EncoderIdentity | None:
        """The encoder that wrote streams; None in a cache of sensors alone."""
        return next(iter(self.encoders.values()), None)

    @property
    def observed(self) -> tuple[Stream, ...]:
        """All that a policy may know of an instant: every stream but the action."""
        return tuple(stream for stream in self.streams if stream.name != ACTION)

    @property
    def action(self) -> Stream:
        return self.stream(ACTION)

    @property
    def state(self) -> Stream | None:
        """The robot's state; None where the dataset has none."""
        return next((stream for stream in self.streams if stream.name == STATE), None)

    @property
    def encoded(self) -> tuple[str, ...]:
        """Names of the streams that encoders wrote."""
        return tuple(stream.name for stream in self.streams if stream.made_by is not None)

    def stream(self, name: str) -> Stream:
        """Return the stream of a name; raises KeyError where there is none."""
        return {stream.name: stream for stream in self.streams}[name]

    def layout(self, part: int, shard: int) -> ShardLayout:
        """Return what the file of a shard must hold."""
        there = self.parts[part]
        frames = there.frame_range(shard)
        header = ShardHeader(part=there.id, first_frame=frames.start, frames=len(frames))
        layout = ShardLayout.planned(header, self.streams, self.variants)
        return layout.renamed(self.tensor_names) if self.format_version == 1 else layout

    @property
    def tensor_names(self) -> dict[str, str]:
        """What a stream is called in a shard: by its name; in format 1 features had a prefix."""
        prefix = "features." if self.format_version == 1 else ""
        return {s.name: f"{prefix if s.made_by else ''}{s.name}" for s in self.streams}


def recipe_of(dataset: DatasetIdentity, streams: tuple[Stream, ...], augmentation: Augmentation) -> str:
    """Identify what decides a cache's values, apart from the demonstrations."""
    return digest_of(
        {
            "format_version": FORMAT_VERSION,
            "fps": dataset.fps,
            "keys": dataset.keys,
            "streams": [stream.model_dump(mode="json") for stream in streams],
            "augmentation": augmentation.model_dump(mode="json") if augmentation.variants else None,
        }
    )


def fingerprint_of(recipe: str, content_sha256: str) -> str:
    """Identify a cache by its recipe and its episodes."""
    return digest_of([recipe, content_sha256])


def content_sha256_of(episodes: Episodes) -> str:
    """Identify demonstrations by what they hold: their contents in order, and their tasks."""
    whole = hashlib.sha256(np.ascontiguousarray(episodes.content, np.uint8).tobytes())
    whole.update(np.ascontiguousarray(episodes.task, "<i4").tobytes())
    whole.update(json.dumps(list(episodes.tasks)).encode())
    whole.update(np.ascontiguousarray(episodes.changes, "<i8").tobytes())
    return whole.hexdigest()


def digest_of(value: Any) -> str:
    """Return 12 hexadecimal digits that name a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
