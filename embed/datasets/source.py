"""What stage one asks of a dataset: episodes, and their streams decoded in order.

Another format is another subclass; nothing else in `vla` knows about files of demonstrations.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int32

from vla.base.errors import DatasetError
from vla.cache.episodes import Episode, Episodes
from vla.cache.metadata import DatasetIdentity, content_sha256_of
from vla.cache.stream import ACTION, STATE, Stream
from vla.embed.datasets.content import FileWatch
from vla.embed.datasets.dataset_config import DIMENSIONS, RESERVED, DatasetConfig


@dataclass(frozen=True, kw_only=True)
class FrameBlock:
    """Consecutive frames: an observation with the action, every array with a leading axis of frames."""

    streams: dict[str, np.ndarray]
    """By name: cameras uint8 [n, h, w, 3] RGB, which may differ in size; all others float32 [n, *shape]."""
    episode_index: Int32[np.ndarray, "n"]
    """The dataset's own number of the episode."""
    frame_index: Int32[np.ndarray, "n"]
    """Counted within the episode."""

    def __len__(self) -> int:
        return len(self.frame_index)


class FrameSource(ABC):
    """Demonstrations on disk."""

    @property
    @abstractmethod
    def format(self) -> str:
        """Name of the format, such as `lerobot-v3.0`."""

    @property
    @abstractmethod
    def fps(self) -> float:
        """Frames a second."""

    @property
    @abstractmethod
    def streams(self) -> tuple[Stream, ...]:
        """What `read` delivers: cameras, then sensors, then state and action."""

    @property
    @abstractmethod
    def episodes(self) -> tuple[Episode, ...]:
        """The chosen episodes; frames are numbered 0, 1, 2, … through them."""

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The streams that are images, in order."""
        return tuple(stream.name for stream in self.streams if stream.kind == "image")

    @cached_property
    def keys(self) -> dict[str, str]:
        """What the dataset calls each stream."""
        return {stream.name: stream.key for stream in self.streams}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of the dataset, a line each; it can be read all the same."""
        return ()

    @abstractmethod
    def files(self) -> list[str]:
        """List the files that decide what `read` delivers, relative to the dataset's directory."""

    @abstractmethod
    def watch(self) -> FileWatch:
        """Watch `files` from now on."""

    @property
    @abstractmethod
    def path(self) -> str:
        """As the user named it."""

    @property
    def revision(self) -> str | None:
        """Commit on the Hub; None for a directory."""
        return None

    @property
    @abstractmethod
    def chosen(self) -> tuple[int, ...] | None:
        """The episodes that were chosen, by the dataset's own numbers; None is all of them."""

    @abstractmethod
    def contents(self, positions: Sequence[int]) -> list[bytes]:
        """Identify some of `episodes` by what they hold, 32 bytes each; reads each of their files once.

        Raises:
            DatasetError: a file is missing or cannot be read.
        """

    @abstractmethod
    def place(self, position: int) -> tuple[tuple[str, ...], str]:
        """Return the files that an episode's content is read from, and in words where in them and how."""

    @abstractmethod
    def files_sha256(self) -> str:
        """Hash names and bytes of `files`, by which caches of formats 1 and 2 were named."""

    def identity(self, contents: Sequence[bytes] | None = None) -> DatasetIdentity:
        """Identify the dataset.

        Args:
            contents: of all `episodes`; None reads them.

        Raises:
            DatasetError: a file is missing or cannot be read.
        """
        contents = self.contents(range(len(self.episodes))) if contents is None else contents
        columns = Episodes.of(self.episodes, contents=contents)
        return DatasetIdentity(
            path=self.path,
            revision=self.revision,
            format=self.format,
            content_sha256=content_sha256_of(columns),
            episodes=self.chosen,
            fps=self.fps,
            keys=self.keys,
        )

    def vectors(self, position: int) -> dict[str, np.ndarray]:
        """Return state and action of an episode, float32 [n, dim] each.

        Raises:
            DatasetError: it cannot be read.
        """
        episode = self.episodes[position]
        frames = range(episode.first_frame, episode.first_frame + episode.length)
        (block,) = self.read(frames, episode.length)
        return {name: block.streams[name] for name in (STATE, ACTION) if name in block.streams}

    @abstractmethod
    def read(self, frames: range, block: int, size: tuple[int, int] | None = None) -> Iterator[FrameBlock]:
        """Yield the frames with these numbers, `block` at a time (the last block may be shorter).

        The same frames are the same bytes, wherever reading began.

        Args:
            frames: their numbers.
            block: frames at a time.
            size: (height, width) [pixel] that images are resized to where they are decoded, by
                `vla.embed.transforms.resize`; None leaves them as the dataset has them.

        Raises:
            DatasetError: a frame cannot be read; the message names episode, frame and camera.
        """


def name_streams(
    dataset: str,
    config: DatasetConfig,
    cameras: Mapping[str, tuple[str, Sequence[int] | None]],
    shapes: Mapping[str, tuple[int, ...]],
    vectors: Mapping[str, str],
) -> tuple[Stream, ...]:
    """Describe all streams of a dataset: cameras, then sensors, then state and action.

    Args:
        dataset: its name, for messages.
        config: names the sensors.
        cameras: key, and height, width and 3 where the dataset promises them, of each camera by name.
        shapes: of one frame of each sensor, state and action, by name.
        vectors: keys of state and action by name.

    Raises:
        DatasetError: a camera has a name that is taken, or a sensor's shape is not that of its kind.
    """
    streams = []
    for name, (key, size) in cameras.items():
        if name in (*RESERVED, *config.streams):
            raise DatasetError(
                f"{dataset}: camera '{name}' has a name that something else has; call the sensor otherwise, "
                "or leave the camera out: --set dataset.cameras=[…]"
            )
        shape = tuple(size) if size and len(size) == 3 and size[2] == 3 else (0, 0, 3)
        streams.append(Stream(name=name, kind="image", dtype="uint8", shape=shape, key=key))
    for name, sensor in config.streams.items():
        due = DIMENSIONS[sensor.kind]
        if len(shapes[name]) != due:
            fitting = [kind for kind, axes in DIMENSIONS.items() if axes == len(shapes[name])]
            raise DatasetError(
                f"{dataset}: '{sensor.key}' has shape {list(shapes[name])} a frame, {sensor.kind} have {due} "
                f"{'axis' if due == 1 else 'axes'}; its kind may be: {', '.join(fitting) or 'none'}; see "
                f"dataset.streams.{name}.kind"
            )
        streams.append(
            Stream(name=name, kind=sensor.kind, dtype="float32", shape=shapes[name], key=sensor.key)
        )
    for name, key in vectors.items():
        if len(shapes[name]) != 1:
            raise DatasetError(f"{dataset}: '{key}' has shape {list(shapes[name])}; {name} takes vectors")
        streams.append(Stream(name=name, kind="vector", dtype="float32", shape=shapes[name], key=key))
    return tuple(streams)
