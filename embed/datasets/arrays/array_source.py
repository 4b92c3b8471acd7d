"""Read demonstrations that are arrays with a row a frame; what they lie in, a subclass knows."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from vla.base.errors import DatasetError
from vla.cache.episodes import Episode, positions
from vla.cache.stream import ACTION, STATE, Stream
from vla.embed.datasets.arrays.episode import Arrays, Contents
from vla.embed.datasets.content import EpisodeContent, FileWatch, files_sha256
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.episodes import Span, choose_episodes, locate, number_through
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.images import FrameError, Sizes, stack
from vla.embed.datasets.source import FrameBlock, FrameSource, name_streams

CONTENT_FRAMES = 64
"""Read at a time to identify an episode."""


@dataclass(frozen=True)
class Place:
    """Where an episode lies."""

    file: str
    """Relative to the dataset's directory."""
    group: str = ""
    """Within the file."""
    rows: range | None = None
    """Of the arrays; None is all of them."""

    @property
    def first(self) -> int:
        return self.rows.start if self.rows else 0


@dataclass(frozen=True)
class _Entry:
    index: int
    place: Place
    length: int
    task: str


class ArraySource(FrameSource):
    """Demonstrations as arrays.

    Args:
        folder: the directory.
        config: cameras, keys, episodes and order of colours.
        workers: threads that decode.
        fps: frames a second.
        places: of all episodes, by their numbers, in order.
        vectors: keys of state and action by name.
        subset: the numbers to take, where not all are meant.

    Raises:
        DatasetError: an episode, camera or column is not there, or episodes do not agree.
    """

    def __init__(
        self,
        folder: DatasetFolder,
        config: DatasetConfig,
        workers: int,
        fps: float,
        places: Mapping[int, Place],
        vectors: Mapping[str, str],
        subset: Collection[int] | None = None,
    ) -> None:
        self._folder, self._config, self._workers, self._fps = folder, config, workers, fps
        self._numbers = {**{name: sensor.key for name, sensor in config.streams.items()}, **vectors}
        self._total = len(places)
        chosen = choose_episodes(folder.name, places, config.episodes)
        chosen = [number for number in chosen if subset is None or number in subset]
        if not chosen:
            raise DatasetError(
                f"{folder.name}: none of dataset.episodes is in subset '{config.subset}'; leave one out"
            )
        keys, first = self._look(places[chosen[0]], config.cameras)
        cameras = {name: (keys[name], size) for name, size in first.cameras.items()}
        self._streams = name_streams(folder.name, config, cameras, first.shapes, vectors)
        self._entries = [self._entry(number, places[number], first) for number in chosen]

    @abstractmethod
    def _open(self, place: Place) -> Arrays:
        """Open the arrays of an episode."""

    @property
    def fps(self) -> float:
        return self._fps

    @property
    def streams(self) -> tuple[Stream, ...]:
        return self._streams

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        return number_through(self._folder.name, ((e.index, e.length, e.task, ()) for e in self._entries))

    def files(self) -> list[str]:
        return sorted({entry.place.file for entry in self._entries})

    def watch(self) -> FileWatch:
        return FileWatch(self._folder.name, self._folder.root, self.files())

    @property
    def path(self) -> str:
        return self._folder.name

    @cached_property
    def chosen(self) -> tuple[int, ...] | None:
        return None if len(self._entries) == self._total else tuple(entry.index for entry in self._entries)

    def files_sha256(self) -> str:
        # Both stand for what an episode does not say of itself.
        settings = [f"fps {self._fps!r}", f"color {self._config.color}"]
        return files_sha256(self._folder, self.files(), settings)

    def contents(self, positions: Sequence[int]) -> list[bytes]:
        # One after the other: libhdf5 does one thing at a time.
        return [self._content(self._entries[position]) for position in positions]

    def place(self, position: int) -> tuple[tuple[str, ...], str]:
        place = self._entries[position].place
        where = [str(part) for part in (place.group, place.rows) if part]
        return (place.file,), " ".join([*where, f"color {self._config.color}"])

    def _content(self, entry: _Entry) -> bytes:
        content = EpisodeContent(self.streams)
        with closing(self._open(entry.place)) as arrays:
            for stream in self.streams:
                if stream.kind == "image":
                    content.add(stream.name, self._config.color.encode())
                for start in range(0, entry.length, CONTENT_FRAMES):
                    frames = range(start, min(start + CONTENT_FRAMES, entry.length))
                    rows = _moved(frames, entry.place.first)
                    if stream.kind != "image":
                        content.add_numbers(stream.name, arrays.numbers(stream.key, rows))
                        continue
                    try:
                        content.add_images(stream.name, arrays.image_bytes(stream.key, rows))
                    except FrameError as error:
                        where = f"camera '{stream.name}' at episode {entry.index}"
                        raise DatasetError(f"{self._folder.name}: {where}: a frame {error}") from error
        return content.digest()

    def read(self, frames: range, block: int, size: tuple[int, int] | None = None) -> Iterator[FrameBlock]:
        opened: tuple[Place, Arrays] | None = None
        try:
            with ThreadPoolExecutor(self._workers) as pool:
                for start in range(frames.start, frames.stop, block):
                    parts, here = [], range(start, min(start + block, frames.stop))
                    for span in locate(self.episodes, here):
                        place = self._entries[span.position].place
                        if opened is None or opened[0] != place:
                            if opened is not None:
                                opened[1].close()
                            opened = place, self._open(place)
                        parts.append(self._read_span(opened[1], span, pool, size))
                    yield self._join(parts, here)
        finally:
            if opened is not None:
                opened[1].close()

    def vectors(self, position: int) -> dict[str, np.ndarray]:
        entry, keys = self._entries[position], self.keys
        with closing(self._open(entry.place)) as arrays:
            rows = _moved(range(entry.length), entry.place.first)
            return {name: arrays.numbers(keys[name], rows) for name in (STATE, ACTION) if name in keys}

    @cached_property
    def _sizes(self) -> Sizes:
        return Sizes(self._first_shape)

    def _first_shape(self, camera: str) -> tuple[int, ...]:
        """Return the shape of a camera's first frame: that of the first episode that has one."""
        for entry in self._entries:
            with (
                suppress(DatasetError, FrameError),
                closing(self._open(entry.place)) as arrays,
                ThreadPoolExecutor(1) as pool,
            ):
                rows = _moved(range(1), entry.place.first)
                (first,) = arrays.images(self.keys[camera], rows, self._config.color, pool, None)
                return first.stored
        raise FrameError("cannot be held against the camera's first frame, which no episode has")

    def _look(self, place: Place, cameras: tuple[str, ...]) -> tuple[dict[str, str], Contents]:
        """Return the keys of all cameras of an episode, and what it says of those that are needed."""
        with closing(self._open(place)) as arrays:
            try:
                return arrays.cameras(), arrays.contents(cameras, self._numbers)
            except arrays.errors as error:
                raise DatasetError(f"{arrays.name} is damaged ({error})") from error

    def _entry(self, number: int, place: Place, first: Contents) -> _Entry:
        """Check an episode against the first one."""
        _, contents = self._look(place, self._config.cameras)
        where = f"{self._folder.name}: episode {number} ({' '.join(filter(None, (place.file, place.group)))})"
        if differing := sorted(first.cameras.keys() ^ contents.cameras.keys()):
            both = ", ".join(f'"{camera}"' for camera in first.cameras if camera in contents.cameras)
            has = "has" if differing[0] in contents.cameras else "lacks"
            raise DatasetError(
                f"{where} {has} camera '{differing[0]}', unlike the first one; take those that all have: "
                f"--set 'dataset.cameras=[{both}]', or leave episodes out: --set dataset.episodes=[…]"
            )
        for name, expected in first.shapes.items():
            if (found := contents.shapes[name]) != expected:
                raise DatasetError(
                    f"{where} has {name} of shape {list(found)}, the first one {list(expected)}; leave "
                    "the episode out: --set dataset.episodes=[…]"
                )
        return _Entry(number, place, len(place.rows) if place.rows else contents.length, contents.task)

    def _read_span(
        self, arrays: Arrays, span: Span, pool: ThreadPoolExecutor, size: tuple[int, int] | None
    ) -> dict[str, np.ndarray]:
        """Return all streams of consecutive frames of one episode."""
        entry, frames = self._entries[span.position], range(span.start, span.stop)
        rows = _moved(frames, entry.place.first)

        def where(camera: str, row: int) -> str:
            return f"{self._folder.name}: camera '{camera}' at episode {entry.index}, frame {frames[row]}"

        def read(stream: Stream) -> np.ndarray:
            if stream.kind != "image":
                return arrays.numbers(stream.key, rows)
            images = arrays.images(stream.key, rows, self._config.color, pool, size)
            check = partial(self._sizes.check, stream.name)
            return stack(images, len(frames), partial(where, stream.name), check)

        return {stream.name: read(stream) for stream in self.streams}

    def _join(self, parts: list[dict[str, np.ndarray]], frames: range) -> FrameBlock:
        episode_index, frame_index = positions(self.episodes, frames)
        return FrameBlock(
            streams={name: np.concatenate([part[name] for part in parts]) for name in self.keys},
            episode_index=episode_index,
            frame_index=frame_index,
        )


def _moved(frames: range, rows: int) -> range:
    return range(frames.start + rows, frames.stop + rows)
