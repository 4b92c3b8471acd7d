"""Read folders of HDF5 episodes, `episode_0.hdf5` and so on, as ACT, ALOHA and RoboIMI write them."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from vla.base.errors import DatasetError
from vla.cache.episodes import Episode, positions
from vla.cache.stream import ACTION, STATE, Stream
from vla.embed.datasets.content import EpisodeContent, FileWatch, files_sha256
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.episodes import Span, choose_episodes, locate, number_through
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.hdf5.episode_file import HDF5_ERRORS, IMAGES, EpisodeContents, Hdf5Episode
from vla.embed.datasets.images import stack
from vla.embed.datasets.source import FrameBlock, FrameSource, name_streams

CONTENT_FRAMES = 64
"""Read at a time to identify an episode."""
NAME = re.compile(r"episode_?(\d{1,9})\.(hdf5|h5)", re.ASCII)


def episode_files(folder: DatasetFolder) -> dict[int, str]:
    """Return the episode files of a folder by number, in numerical order.

    Raises:
        DatasetError: two files have the same number.
    """
    found: dict[int, str] = {}
    for path in sorted(folder.root.iterdir()):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            names = f"{found[number]} and {path.name}"
            raise DatasetError(f"{folder.name}: {names} are the same episode; remove one")
        found[number] = path.name
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class _Entry:
    index: int
    file: str
    contents: EpisodeContents


class Hdf5Source(FrameSource):
    """A folder of HDF5 episodes.

    Args:
        folder: the directory.
        config: cameras, keys, episodes, frames a second and order of colours.
        workers: threads that decode.

    Raises:
        DatasetError: no frames a second are given, or an episode, camera or key is not there.
    """

    def __init__(self, folder: DatasetFolder, config: DatasetConfig, workers: int) -> None:
        if config.fps is None:
            raise DatasetError(
                f"{folder.name} holds HDF5 episodes, which do not say how many frames a second they have; "
                "add it, such as ALOHA's: --set dataset.fps=50"
            )
        self._folder, self._config, self._workers, self._fps = folder, config, workers, config.fps
        vectors = {STATE: config.state_key or "observations/qpos", ACTION: config.action_key or "action"}
        self._numbers = {**{name: sensor.key for name, sensor in config.streams.items()}, **vectors}
        self._files = episode_files(folder)
        chosen = choose_episodes(folder.name, self._files, config.episodes)
        self._first = self._open(chosen[0], config.cameras)
        cameras = {name: (f"{IMAGES}/{name}", size) for name, size in self._first.cameras.items()}
        self._streams = name_streams(folder.name, config, cameras, self._first.shapes, vectors)
        self._entries = [self._entry(number) for number in chosen]

    @property
    def format(self) -> str:
        return "hdf5-act"

    @property
    def fps(self) -> float:
        return self._fps

    @property
    def streams(self) -> tuple[Stream, ...]:
        return self._streams

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        return number_through(
            self._folder.name, ((e.index, e.contents.length, e.contents.task, ()) for e in self._entries)
        )

    def files(self) -> list[str]:
        return sorted(entry.file for entry in self._entries)

    def watch(self) -> FileWatch:
        return FileWatch(self._folder.name, self._folder.root, self.files())

    @property
    def path(self) -> str:
        return self._folder.name

    @cached_property
    def chosen(self) -> tuple[int, ...] | None:
        whole = len(self._entries) == len(self._files)
        return None if whole else tuple(entry.index for entry in self._entries)

    def files_sha256(self) -> str:
        # Both stand for what an episode does not say of itself.
        settings = [f"fps {self._fps!r}", f"color {self._config.color}"]
        return files_sha256(self._folder, self.files(), settings)

    def contents(self, positions: Sequence[int]) -> list[bytes]:
        # One after the other: libhdf5 does one thing at a time.
        return [self._content(self._entries[position]) for position in positions]

    def place(self, position: int) -> tuple[tuple[str, ...], str]:
        return (self._entries[position].file,), f"color {self._config.color}"

    def _content(self, entry: _Entry) -> bytes:
        content, length = EpisodeContent(self.streams), entry.contents.length
        with Hdf5Episode(self._folder.file(entry.file)) as episode:
            for stream in self.streams:
                if stream.kind == "image":
                    content.add(stream.name, self._config.color.encode())
                for first in range(0, length, CONTENT_FRAMES):
                    frames = range(first, min(first + CONTENT_FRAMES, length))
                    if stream.kind == "image":
                        content.add_images(stream.name, episode.image_bytes(stream.name, frames))
                    else:
                        content.add_numbers(stream.name, episode.numbers(stream.key, frames))
        return content.digest()

    def read(self, frames: range, block: int, size: tuple[int, int] | None = None) -> Iterator[FrameBlock]:
        opened: Hdf5Episode | None = None
        try:
            with ThreadPoolExecutor(self._workers) as pool:
                for start in range(frames.start, frames.stop, block):
                    parts, here = [], range(start, min(start + block, frames.stop))
                    for span in locate(self.episodes, here):
                        path = self._folder.file(self._entries[span.position].file)
                        if opened is None or opened.path != path:
                            if opened is not None:
                                opened.close()
                            opened = Hdf5Episode(path)
                        parts.append(self._read_span(opened, span, pool, size))
                    yield self._join(parts, here)
        finally:
            if opened is not None:
                opened.close()

    def _open(self, number: int, cameras: tuple[str, ...]) -> EpisodeContents:
        path = self._folder.file(self._files[number])
        try:
            with Hdf5Episode(path) as episode:
                return episode.contents(cameras, self._numbers)
        except HDF5_ERRORS as error:
            raise DatasetError(f"{path} is damaged ({error})") from error

    def _entry(self, number: int) -> _Entry:
        contents = self._open(number, tuple(self._first.cameras))
        for name, expected in self._first.shapes.items():
            if (found := contents.shapes[name]) != expected:
                raise DatasetError(
                    f"{self._folder.name}: {self._files[number]} has {name} of shape {list(found)}, "
                    f"the first one {list(expected)}"
                )
        return _Entry(number, self._files[number], contents)

    def _read_span(
        self, episode: Hdf5Episode, span: Span, pool: ThreadPoolExecutor, size: tuple[int, int] | None
    ) -> dict[str, np.ndarray]:
        """Return all streams of consecutive frames of one episode."""
        frames = range(span.start, span.stop)
        index, color = self._entries[span.position].index, self._config.color

        def where(camera: str, row: int) -> str:
            return f"{self._folder.name}: camera '{camera}' at episode {index}, frame {frames[row]}"

        def read(stream: Stream) -> np.ndarray:
            if stream.kind != "image":
                return episode.numbers(stream.key, frames)
            images = episode.images(stream.name, frames, color, pool, size)
            return stack(images, len(frames), partial(where, stream.name))

        return {stream.name: read(stream) for stream in self.streams}

    def _join(self, parts: list[dict[str, np.ndarray]], frames: range) -> FrameBlock:
        episode_index, frame_index = positions(self.episodes, frames)
        for camera in self.camera_names:
            if len({part[camera].shape[1:] for part in parts}) > 1:
                raise DatasetError(
                    f"{self._folder.name}: camera '{camera}' changes its size from episode "
                    f"{episode_index[0]} to {episode_index[-1]}"
                )
        return FrameBlock(
            streams={name: np.concatenate([part[name] for part in parts]) for name in self.keys},
            episode_index=episode_index,
            frame_index=frame_index,
        )
