"""What stage one asks of a dataset: episodes, and their streams decoded in order.

Another format is another subclass; nothing else in `vla` knows about files of demonstrations.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int32

from vla.base.errors import DatasetError
from vla.base.strict import MAX_WIDTH
from vla.cache.episodes import Episode, Episodes
from vla.cache.metadata import DatasetIdentity, content_sha256_of
from vla.cache.stream import ACTION, STATE, Stream
from vla.embed.datasets.content import FileWatch
from vla.embed.datasets.dataset_config import DIMENSIONS, NONE, RESERVED, DatasetConfig, names_of


class NoFps(DatasetError):
    """Neither the dataset nor the configuration says how many frames a second there are.

    Args:
        dataset: its name.
        what: it is, in words.
        example: of a rate, such as `ALOHA's: --set dataset.fps=50`.
    """

    def __init__(self, dataset: str, what: str, example: str) -> None:
        super().__init__(
            f"{dataset} holds {what}, which do not say how many frames a second they have; add it, such as "
            f"{example}"
        )


class NoState(DatasetError):
    """Neither the dataset nor the configuration says which columns are the robot's state.

    Args:
        dataset: its name.
        vectors: sizes of the columns that might be, by name.
    """

    def __init__(self, dataset: str, vectors: Mapping[str, int]) -> None:
        there = ", ".join(f"{name} [{size}]" for name, size in vectors.items()) or "none"
        example = ", ".join(f'"{name}"' for name in list(vectors)[:2]) or '"NAME"'
        super().__init__(
            f"{dataset} does not say which vectors are the robot's state; name them: --set "
            f"'dataset.state_key=[{example}]', or take none: --set dataset.state_key=none. There are: {there}"
        )


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


def vector_keys(config: DatasetConfig, state: str, action: str) -> dict[str, str]:
    """Return the keys of state and action by name: as configured, else the format's own.

    Args:
        config: may name others, or leave the state out.
        state: the format's own.
        action: likewise.
    """
    keys = {STATE: config.state_key or state, ACTION: config.action_key or action}
    return {name: key for name, key in keys.items() if key != NONE}


def joined_shape(dataset: str, key: str, shape_of: Callable[[str], tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of one frame of a key that may name several columns, joined along their only axis.

    Args:
        dataset: its name, for messages.
        key: see `names_of`.
        shape_of: returns the shape of one frame of a column.

    Raises:
        DatasetError: a column that is joined to others has more axes than one, or they are too long together.
    """
    shapes = [(name, shape_of(name)) for name in names_of(key)]
    if len(shapes) == 1:
        return shapes[0][1]
    for name, shape in shapes:
        if len(shape) != 1:
            raise DatasetError(
                f"{dataset}: '{name}' has shape {list(shape)} a frame; only vectors are joined"
            )
    total = sum(shape[0] for _, shape in shapes)
    if total > MAX_WIDTH:
        raise DatasetError(f"{dataset}: '{key}' has {total} values a frame; vla takes up to {MAX_WIDTH}")
    return (total,)


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
        vectors: keys of state, if there is one, and action by name.

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
            raise DatasetError(
                f"{dataset}: '{key}' has shape {list(shapes[name])} a frame; {name} takes vectors; if a row "
                "holds a chunk of actions, store the first: vla cuts chunks itself (policy.pred_horizon)"
            )
        streams.append(Stream(name=name, kind="vector", dtype="float32", shape=shapes[name], key=key))
    return tuple(streams)
