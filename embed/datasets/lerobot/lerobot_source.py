"""Read a LeRobotDataset v3.0, v2.1 or v2.0, with images, videos, or some of each."""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property, partial

import pyarrow as pa

from vla.base.errors import DatasetError
from vla.cache.episodes import Episode, positions
from vla.cache.stream import ACTION, STATE, Stream
from vla.embed.datasets.content import FileWatch, files_sha256
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.decoders import Decoded, Decoders
from vla.embed.datasets.episodes import choose_episodes, locate, number_through
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.lerobot import episodes_v3, episodes_v21
from vla.embed.datasets.lerobot.contents import lerobot_contents
from vla.embed.datasets.lerobot.info import read_info
from vla.embed.datasets.lerobot.tables import (
    POSITION_COLUMNS,
    EpisodeFiles,
    Rows,
    check_positions,
    check_times,
    numbers,
    read_rows,
)
from vla.embed.datasets.source import FrameBlock, FrameSource, name_streams

FRAMES_AHEAD = 32
"""Begun before the oldest block is waited for, so that no thread waits for its slowest image."""


class LeRobotSource(FrameSource):
    """A LeRobotDataset.

    Args:
        folder: its directory.
        config: cameras, keys, episodes and tolerance.
        workers: threads that decode.

    Raises:
        DatasetError: metadata are not valid, or a camera, key or episode is not there.
    """

    def __init__(self, folder: DatasetFolder, config: DatasetConfig, workers: int) -> None:
        self._folder, self._config, self._workers = folder, config, workers
        self._info = read_info(folder, config)
        vectors = {STATE: config.state_key or "observation.state", ACTION: config.action_key or "action"}
        keys = {**{name: sensor.key for name, sensor in config.streams.items()}, **vectors}
        shapes = {name: self._info.shape(folder.name, key) for name, key in keys.items()}
        cameras = self._info.choose_cameras(folder.name, config.cameras)
        sizes = {camera: (key, self._info.features[key].shape) for camera, key in cameras.items()}
        self._streams = name_streams(folder.name, config, sizes, shapes, vectors)
        self._videos = {
            camera: key for camera, key in cameras.items() if self._info.features[key].dtype == "video"
        }
        if self._videos and config.tolerance_s >= 0.5 / self._info.fps:
            raise DatasetError(
                f"dataset.tolerance_s = {config.tolerance_s:g} does not tell frames apart that are "
                f"{1 / self._info.fps:.4g} s from each other; set less than {0.5 / self._info.fps:.4g}"
            )

    @property
    def format(self) -> str:
        return f"lerobot-{self._info.codebase_version}"

    @property
    def fps(self) -> float:
        return self._info.fps

    @property
    def streams(self) -> tuple[Stream, ...]:
        return self._streams

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        return number_through(self._folder.name, ((e.index, e.length, e.task) for e in self._chosen))

    def files(self) -> list[str]:
        tables = {name for episode in self._chosen for name in episode.rows.files}
        videos = {span.file for episode in self._chosen for span in episode.videos.values()}
        return sorted({*self._folder.files_below("meta"), *tables, *videos})

    def watch(self) -> FileWatch:
        return FileWatch(self._folder.name, self._folder.root, self.files())

    @property
    def path(self) -> str:
        return self._folder.name

    @property
    def revision(self) -> str | None:
        return self._folder.revision

    @cached_property
    def chosen(self) -> tuple[int, ...] | None:
        return None if len(self._chosen) == len(self._all) else tuple(e.index for e in self._chosen)

    def files_sha256(self) -> str:
        return files_sha256(self._folder, self.files())

    def contents(self, positions: Sequence[int]) -> list[bytes]:
        episodes = [self._chosen[position] for position in positions]
        return lerobot_contents(
            self._folder,
            episodes,
            self.streams,
            {name: self.keys[name] for name in self._videos},
            fps=self.fps,
            tolerance_s=self._config.tolerance_s,
            workers=self._workers,
        )

    def place(self, position: int) -> tuple[tuple[str, ...], str]:
        episode = self._chosen[position]
        rows, spans = episode.rows, sorted(episode.videos.items())
        videos = [(key, span.file, span.start_s) for key, span in spans]
        how = (rows.column, rows.start, rows.stop, videos, self.fps, self._config.tolerance_s)
        return (*rows.files, *(span.file for _, span in spans)), repr(how)

    def read(self, frames: range, block: int, size: tuple[int, int] | None = None) -> Iterator[FrameBlock]:
        stored = [stream.key for stream in self.streams if stream.name not in self._videos]
        columns = list(dict.fromkeys([*stored, *POSITION_COLUMNS]))
        tables = read_rows(self._folder, self._rows(frames), columns, block)
        begun: deque[tuple[range, dict[str, Decoded]]] = deque()
        first, ahead = frames.start, max(1, FRAMES_AHEAD // block)

        def finished() -> FrameBlock:
            here, streams = begun.popleft()
            episode_index, frame_index = positions(self.episodes, here)
            return FrameBlock(
                streams={name: wait() for name, wait in streams.items()},
                episode_index=episode_index,
                frame_index=frame_index,
            )

        settings = self._config.tolerance_s, self._videos, self._workers, size
        with Decoders(self._folder, *settings) as decoders:
            for table in tables:
                here = range(first, first + len(table))
                begun.append((here, self._begin(table, here, decoders)))
                first = here.stop
                if len(begun) > ahead:
                    yield finished()
            while begun:
                yield finished()

    @cached_property
    def _all(self) -> list[EpisodeFiles]:
        version = episodes_v3 if self._info.codebase_version == "v3.0" else episodes_v21
        return version.read_episodes(self._folder, self._info, list(self._videos.values()))

    @cached_property
    def _chosen(self) -> list[EpisodeFiles]:
        by_index = {episode.index: episode for episode in self._all}
        present = [episode.index for episode in self._all]
        numbers = choose_episodes(self._folder.name, present, self._config.episodes)
        return [by_index[number] for number in numbers]

    def _rows(self, frames: range) -> Iterator[Rows]:
        """Yield where the rows of some frames are, in as few pieces as there can be."""
        waiting: Rows | None = None
        for span in locate(self.episodes, frames):
            whole = self._chosen[span.position].rows
            rows = Rows(whole.files, whole.column, whole.start + span.start, whole.start + span.stop)
            joined = waiting.joined(rows) if waiting else rows
            if joined is None and waiting:
                yield waiting
            waiting = joined or rows
        if waiting:
            yield waiting

    def _begin(self, table: pa.Table, frames: range, decoders: Decoders) -> dict[str, Decoded]:
        """Check the rows of a block and begin to decode its images; return what waits for each stream."""
        name, fps, tolerance_s = self._folder.name, self.fps, self._config.tolerance_s
        episode_index, frame_index = positions(self.episodes, frames)
        check_positions(table, episode_index, frame_index, name)
        check_times(table, episode_index, frame_index, fps, tolerance_s, name)

        def where(camera: str, row: int) -> str:
            at = f"episode {episode_index[row]}, frame {frame_index[row]}"
            return f"{name}: camera '{camera}' at {at}"

        begun: dict[str, Decoded] = {}
        for stream in self.streams:
            if stream.kind != "image":
                begun[stream.name] = partial(numbers, table, stream.key, stream.shape, name)
                continue
            named = partial(where, stream.name)
            if stream.name not in self._videos:
                begun[stream.name] = decoders.begin_images(table[stream.key].to_pylist(), named)
                continue
            spans = [
                (self._chosen[span.position].videos[stream.key], range(span.start, span.stop))
                for span in locate(self.episodes, frames)
            ]
            begun[stream.name] = decoders.begin_video(stream.name, spans, fps, named)
        return begun
