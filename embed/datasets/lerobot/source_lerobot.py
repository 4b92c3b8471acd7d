"""Read a LeRobotDataset v3.0, v2.1 or v2.0, with images, videos, or some of each."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import cached_property, partial

import pyarrow as pa

from vla.base.errors import DatasetError
from vla.cache.metadata import DatasetIdentity, Episode
from vla.embed.datasets.content import content_sha256
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.decoders import Decoded, Decoders
from vla.embed.datasets.episodes import choose_episodes, locate, number_through, positions
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.lerobot import v3, v21
from vla.embed.datasets.lerobot.info import read_info
from vla.embed.datasets.lerobot.places import EpisodeFiles
from vla.embed.datasets.lerobot.rows_check import check_positions, check_times
from vla.embed.datasets.lerobot.tables import POSITION_COLUMNS, Rows, rebatch, stream, vectors
from vla.embed.datasets.source import FrameBlock, FrameSource
from vla.embed.datasets.watch import FileWatch

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
        self.state_key = config.state_key or "observation.state"
        self.action_key = config.action_key or "action"
        self._state_dim = self._info.vector_dim(folder.name, self.state_key)
        self._action_dim = self._info.vector_dim(folder.name, self.action_key)
        self._keys = self._info.choose_cameras(folder.name, config.cameras)
        self._videos = {
            camera: key for camera, key in self._keys.items() if self._info.features[key].dtype == "video"
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
    def camera_names(self) -> tuple[str, ...]:
        return tuple(self._keys)

    @property
    def state_dim(self) -> int:
        return self._state_dim

    @property
    def action_dim(self) -> int:
        return self._action_dim

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        return number_through(self._folder.name, ((e.index, e.length, e.task) for e in self._chosen))

    def files(self) -> list[str]:
        tables = {name for episode in self._chosen for name in episode.rows.files}
        videos = {span.file for episode in self._chosen for span in episode.videos.values()}
        return sorted({*self._folder.files_below("meta"), *tables, *videos})

    def watch(self) -> FileWatch:
        return FileWatch(self._folder.name, self._folder.root, self.files())

    def identity(self) -> DatasetIdentity:
        return DatasetIdentity(
            path=self._folder.name,
            revision=self._folder.revision,
            format=self.format,
            content_sha256=content_sha256(self._folder, self.files()),
            episodes=None if len(self._chosen) == len(self._all) else tuple(e.index for e in self._chosen),
            fps=self.fps,
            state_key=self.state_key,
            action_key=self.action_key,
        )

    def read(self, frames: range, block: int) -> Iterator[FrameBlock]:
        images = [key for key in self._keys.values() if key not in self._videos.values()]
        columns = [*images, self.state_key, self.action_key, *POSITION_COLUMNS]
        tables = (
            table for rows in self._rows(frames) for table in stream(self._folder, rows, columns, block)
        )
        begun: deque[Callable[[], FrameBlock]] = deque()
        first = frames.start
        with Decoders(self._folder, self._config.tolerance_s, self._videos, self._workers) as decoders:
            for table in rebatch(tables, block):
                begun.append(self._begin(table, range(first, first + len(table)), decoders))
                first += len(table)
                if len(begun) > max(1, FRAMES_AHEAD // block):
                    yield begun.popleft()()
            while begun:
                yield begun.popleft()()

    @cached_property
    def _all(self) -> list[EpisodeFiles]:
        layout = v3 if self._info.codebase_version == "v3.0" else v21
        return layout.read_episodes(self._folder, self._info, list(self._videos.values()))

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

    def _begin(self, table: pa.Table, frames: range, decoders: Decoders) -> Callable[[], FrameBlock]:
        """Check the rows of a block and begin to decode its images; return what waits for them."""
        episode_index, frame_index = positions(self.episodes, frames)
        check_positions(table, episode_index, frame_index, self._folder.name)
        check_times(table, episode_index, frame_index, self.fps, self._config.tolerance_s, self._folder.name)

        def where(camera: str, row: int) -> str:
            at = f"episode {episode_index[row]}, frame {frame_index[row]}"
            return f"{self._folder.name}: camera '{camera}' at {at}"

        def begin(camera: str, key: str) -> Decoded:
            name = partial(where, camera)
            if camera not in self._videos:
                return decoders.begin_images(_cells(table, key), name)
            spans = [
                (self._chosen[span.position].videos[key], range(span.start, span.stop))
                for span in locate(self.episodes, frames)
            ]
            return decoders.begin_video(camera, spans, self.fps, name)

        decoded = {camera: begin(camera, key) for camera, key in self._keys.items()}
        return lambda: FrameBlock(
            images={camera: wait() for camera, wait in decoded.items()},
            state=vectors(table, self.state_key, self._state_dim, self._folder.name),
            action=vectors(table, self.action_key, self._action_dim, self._folder.name),
            episode_index=episode_index,
            frame_index=frame_index,
        )


def _cells(table: pa.Table, key: str) -> list[object]:
    """Return the encoded images of a column, in either form that `datasets` stores them."""
    cells = table[key].to_pylist()
    return [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
