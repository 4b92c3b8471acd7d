"""Read a LeRobotDataset v3.0, v2.1 or v2.0, with images, videos, or some of each."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import cached_property, partial

import numpy as np

from vla.base.errors import DatasetError
from vla.cache.episodes import Episode, positions
from vla.cache.stream import ACTION, STATE, Stream
from vla.embed.datasets.content import FileWatch, files_sha256
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.decoders import Decoded, Decoders, VideoTrack
from vla.embed.datasets.episodes import choose_episodes, locate, number_through
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.images import FrameError, Sizes, decode_image, stored_image
from vla.embed.datasets.lerobot import episodes_v3, episodes_v21
from vla.embed.datasets.lerobot.columns import default_key, find_columns, read_modality
from vla.embed.datasets.lerobot.contents import lerobot_contents
from vla.embed.datasets.lerobot.depth import depth_cameras
from vla.embed.datasets.lerobot.info import read_info
from vla.embed.datasets.lerobot.row_checks import check_positions, check_times
from vla.embed.datasets.lerobot.tables import EpisodeFiles, RowBlock, Rows, read_rows
from vla.embed.datasets.lerobot.tasks import Runs, tasks_of
from vla.embed.datasets.source import FrameBlock, FrameSource, name_streams, vector_keys
from vla.embed.datasets.video import Timing

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
        self._info = info = read_info(folder, config)
        modality, name = read_modality(folder), folder.name
        depth = depth_cameras(folder, info)
        cameras = info.choose_cameras(name, config.cameras, depth, modality.cameras)
        defaults = [default_key(kind, info, modality) for kind in ("state", "action")]
        vectors = vector_keys(config, *defaults)
        self._columns = {
            stream: find_columns(name, key, "state" if stream == STATE else "action", info, modality)
            for stream, key in vectors.items()
        }
        maps = {stream: sensor.key for stream, sensor in config.streams.items() if sensor.kind == "depth"}
        for stream, sensor in config.streams.items():
            if stream not in maps:
                self._columns[stream] = find_columns(name, sensor.key, None, info, modality)
        shapes = {stream: columns.shape for stream, columns in self._columns.items()}
        shapes |= {stream: info.depth_shape(name, key) for stream, key in maps.items()}
        sizes = {camera: (key, info.features[key].shape) for camera, key in cameras.items()}
        self._streams = name_streams(name, config, sizes, shapes, vectors)
        self._images = {**cameras, **maps}
        self._depth = frozenset(maps)
        self._left_out = sorted(depth - set(self._images.values()))
        self._videos = {
            stream: key for stream, key in self._images.items() if info.features[key].dtype == "video"
        }
        self._timing = Timing(info.fps, config.tolerance_s, config.align)
        if self._videos and config.align == "time" and config.tolerance_s >= 0.5 / info.fps:
            raise DatasetError(
                f"dataset.tolerance_s = {config.tolerance_s:g} does not tell frames apart that are "
                f"{1 / info.fps:.4g} s from each other; set less than {0.5 / info.fps:.4g}, and "
                "dataset.timestamp_tolerance_s if only the rows' times are off"
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
        entries = zip(self._chosen, self._tasks, strict=True)
        return number_through(
            self._folder.name, ((e.index, e.length, runs[0][1], runs[1:]) for e, runs in entries)
        )

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        said, empty = self._info.total_episodes, sum(not episode.length for episode in self._listed)
        lines = [
            f"'{key}' is a depth map and left out; keep it by name: dataset.streams, kind = \"depth\""
            for key in self._left_out
        ]
        if isinstance(said, int) and said != len(self._listed):
            lines.append(
                f"info.json says {said} episodes, the list of episodes has {len(self._listed)}; a table "
                "may be missing, or episodes were taken out by hand"
            )
        if empty:
            lines.append(f"{empty} episodes have no frames and are skipped")
        return tuple(lines)

    def files(self) -> list[str]:
        tables = {episode.rows.file for episode in self._chosen}
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
            self._columns,
            self._videos,
            timing=self._timing,
            workers=self._workers,
        )

    def place(self, position: int) -> tuple[tuple[str, ...], str]:
        episode = self._chosen[position]
        rows, spans = episode.rows, sorted(episode.videos.items())
        videos = [(key, span.file, span.start_s) for key, span in spans]
        how = (rows.column, rows.start, rows.stop, videos, self._timing)
        return (rows.file, *(span.file for _, span in spans)), repr(how)

    def vectors(self, position: int) -> dict[str, np.ndarray]:
        episode = self._chosen[position]
        columns = {name: self._columns[name] for name in (STATE, ACTION) if name in self._columns}
        names = [column for found in columns.values() for column in found.names]
        (block,) = read_rows(self._folder, [episode.rows], list(dict.fromkeys(names)), episode.length)
        return {name: found.read(block, self._folder.name) for name, found in columns.items()}

    def read(self, frames: range, block: int, size: tuple[int, int] | None = None) -> Iterator[FrameBlock]:
        numbers = [name for columns in self._columns.values() for name in columns.names]
        images = [key for name, key in self._images.items() if name not in self._videos]
        needed, counted = (
            list(dict.fromkeys([*numbers, *images])),
            ["episode_index", "frame_index", "timestamp"],
        )
        blocks = read_rows(self._folder, self._rows(frames), needed, block, counted)
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

        settings = self._timing, self._videos, self._depth, self._workers, self._sizes, size
        with Decoders(self._folder, *settings) as decoders:
            for rows in blocks:
                here = range(first, first + len(rows))
                begun.append((here, self._begin(rows, here, decoders)))
                first = here.stop
                if len(begun) > ahead:
                    yield finished()
            while begun:
                yield finished()

    @cached_property
    def _listed(self) -> list[EpisodeFiles]:
        version = episodes_v3 if self._info.codebase_version == "v3.0" else episodes_v21
        return version.read_episodes(self._folder, self._info, list(self._videos.values()))

    @cached_property
    def _all(self) -> list[EpisodeFiles]:
        return [episode for episode in self._listed if episode.length]

    @cached_property
    def _chosen(self) -> list[EpisodeFiles]:
        by_index = {episode.index: episode for episode in self._all}
        present = [episode.index for episode in self._all]
        numbers = choose_episodes(self._folder.name, present, self._config.episodes)
        return [by_index[number] for number in numbers]

    @cached_property
    def _tasks(self) -> list[Runs]:
        return tasks_of(self._folder, self._chosen, self._workers)

    @cached_property
    def _sizes(self) -> Sizes:
        return Sizes(self._first_shape)

    def _first_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape that every frame of a camera has: that of the first one that can be read.

        Of a depth map it is the one that info.json promises, by which its stream is stored.
        """
        if name in self._depth:
            return next(stream.shape for stream in self.streams if stream.name == name)
        for episode in self._chosen:
            with suppress(DatasetError, FrameError):
                return self._shape_in(episode, name)
        raise FrameError("cannot be held against the camera's first frame, which no episode has")

    def _shape_in(self, episode: EpisodeFiles, name: str) -> tuple[int, ...]:
        key = self._images[name]
        if name in self._videos:
            with closing(VideoTrack(self._folder, self._timing, 1)) as track:
                return next(track.frames([(episode.videos[key], range(1))])).shape
        rows = Rows(episode.rows.file, episode.rows.column, episode.rows.start, episode.rows.start + 1)
        (block,) = read_rows(self._folder, [rows], [key], 1)
        stored = stored_image(self._folder, block.cells(key)[0])
        return decode_image(stored).shape

    def _rows(self, frames: range) -> Iterator[Rows]:
        """Yield where the rows of some frames are, in as few pieces as there can be."""
        waiting: Rows | None = None
        for span in locate(self.episodes, frames):
            whole = self._chosen[span.position].rows
            rows = Rows(whole.file, whole.column, whole.start + span.start, whole.start + span.stop)
            joined = waiting.joined(rows) if waiting else rows
            if joined is None and waiting:
                yield waiting
            waiting = joined or rows
        if waiting:
            yield waiting

    def _begin(self, rows: RowBlock, frames: range, decoders: Decoders) -> dict[str, Decoded]:
        """Check the rows of a block and begin to decode its images; return what waits for each stream."""
        name = self._folder.name
        episode_index, frame_index = positions(self.episodes, frames)
        check_positions(rows, episode_index, frame_index, name)
        if self._config.align == "time":
            tolerance_s = self._config.timestamp_tolerance_s or self._config.tolerance_s
            check_times(rows, episode_index, frame_index, self.fps, tolerance_s, name)

        def where(camera: str, row: int) -> str:
            at = f"episode {episode_index[row]}, frame {frame_index[row]}"
            return f"{name}: camera '{camera}' at {at}"

        begun: dict[str, Decoded] = {}
        for stream in self.streams:
            named = partial(where, stream.name)
            if stream.name in self._columns:
                begun[stream.name] = partial(self._columns[stream.name].read, rows, name)
            elif stream.name not in self._videos:
                cells = rows.cells(self._images[stream.name])
                begun[stream.name] = decoders.begin_images(stream.name, cells, named)
            else:
                spans = [
                    (self._chosen[span.position].videos[stream.key], range(span.start, span.stop))
                    for span in locate(self.episodes, frames)
                ]
                begun[stream.name] = decoders.begin_video(stream.name, spans, named)
        return begun
