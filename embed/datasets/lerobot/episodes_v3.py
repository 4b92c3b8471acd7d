"""The layout of LeRobotDataset v3.0: many episodes a file.

meta/info.json                           features, fps, path templates
meta/episodes/chunk-*/file-*.parquet     one row an episode: length, tasks, files, first and last frame
data/chunk-*/file-*.parquet              one row a frame, images as encoded bytes
videos/<key>/chunk-*/file-*.mp4          episodes one after the other, each from its `from_timestamp`
"""

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

import pyarrow.parquet as pq
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder, fill_template
from vla.embed.datasets.lerobot.info import LeRobotInfo, one_line
from vla.embed.datasets.lerobot.tables import TABLE_ERRORS, EpisodeFiles, Rows, first_line, value_range
from vla.embed.datasets.lerobot.tasks import task_list
from vla.embed.datasets.video import VideoSpan

Count = Annotated[int, Field(ge=0)]
Tasks = Annotated[tuple[str, ...], BeforeValidator(task_list)]
PLACE = re.compile(r"meta/episodes/[^/]+/[^/]+\.parquet")
VIDEO_COLUMNS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


class Video(BaseModel):
    """Where one camera's video of an episode is."""

    model_config = ConfigDict(allow_inf_nan=False)
    chunk_index: Count
    file_index: Count
    from_timestamp: Annotated[float, Field(ge=0)]
    to_timestamp: float


class Row(BaseModel):
    """One row of the episode table."""

    episode_index: Count
    length: Count
    tasks: Tasks
    dataset_from_index: Count
    data_chunk: Count = Field(alias="data/chunk_index")
    data_file: Count = Field(alias="data/file_index")
    videos: dict[str, Video]


def read_episodes(folder: DatasetFolder, info: LeRobotInfo, video_keys: Sequence[str]) -> list[EpisodeFiles]:
    """Read the episode tables.

    Args:
        folder: the dataset.
        info: its `info.json`.
        video_keys: features whose videos are wanted.

    Raises:
        DatasetError: a table is damaged, or the episodes do not join up.
    """
    rows = sorted(_read_rows(folder, video_keys), key=lambda row: (row.dataset_from_index, row.length))
    expected = 0
    for row in rows:
        if row.dataset_from_index != expected:
            raise DatasetError(
                f"{folder.name}: episode {row.episode_index} starts at frame {row.dataset_from_index}, "
                f"expected {expected}; the episode table and the data do not belong together"
            )
        expected += row.length
    tables = Tables(folder, info.data_path.partition("/")[0])
    found = [_locate(folder, info, row, tables) for row in rows]
    for key in video_keys:
        _check_spans(folder, key, found, info.fps)
    return found


def _locate(folder: DatasetFolder, info: LeRobotInfo, row: Row, tables: "Tables") -> EpisodeFiles:
    table = fill_template(info.data_path, {"chunk_index": row.data_chunk, "file_index": row.data_file})
    videos = {}
    for key, video in row.videos.items():
        # `to_timestamp` is the end of the last frame, or its own time; half a frame is left for rounding.
        duration_s = video.to_timestamp - video.from_timestamp
        if (row.length - 1.5) / info.fps > duration_s:
            raise DatasetError(
                f"{folder.name}: episode {row.episode_index} has {row.length} frames, which take "
                f"{row.length / info.fps:.3f} s; its video of '{key}' takes {duration_s:.3f} s"
            )
        file = info.video_file(folder.name, key, chunk_index=video.chunk_index, file_index=video.file_index)
        videos[key] = VideoSpan(file, video.from_timestamp)
    start, stop = row.dataset_from_index, row.dataset_from_index + row.length
    return EpisodeFiles(
        index=row.episode_index,
        length=row.length,
        tasks=row.tasks,
        rows=Rows(tables.holding(table, start, stop), "index", start, stop),
        videos=videos,
    )


def _check_spans(folder: DatasetFolder, key: str, episodes: Sequence[EpisodeFiles], fps: float) -> None:
    """Refuse two episodes that claim the same part of a video: one of them would see the other's frames."""
    claimed = sorted(
        (e.videos[key].file, e.videos[key].start_s, e.index, e.length) for e in episodes if e.length
    )
    for (file, start_s, index, length), (file2, start2_s, index2, _) in pairwise(claimed):
        if file == file2 and start2_s < start_s + (length - 0.5) / fps and folder.has(file):
            raise DatasetError(
                f"{folder.name}: episodes {index} and {index2} both claim {start2_s:.3f} s of {file}; their "
                "from_timestamp are wrong, as lerobot 0.3's merge left them: merge again with a later one"
            )


class Tables:
    """Which rows each data table holds: converters have left wrong tables in the list of episodes.

    Args:
        folder: the dataset.
        below: where its data tables are.
    """

    def __init__(self, folder: DatasetFolder, below: str) -> None:
        self._folder, self._below = folder, below

    def holding(self, named: str, start: int, stop: int) -> str:
        """Return the table that holds the rows with these indices; the one that is named if none is found."""
        there = range(start, stop)
        if not there or not self._folder.has(named) or _within(there, self._range(named)):
            return named
        return next((name for name in self._all if _within(there, self._range(name))), named)

    @cached_property
    def _all(self) -> list[str]:
        return [name for name in self._folder.files_below(self._below) if name.endswith(".parquet")]

    def _range(self, name: str) -> range:
        if name not in self._known:
            self._known[name] = value_range(self._folder, name, "index")
        return self._known[name]

    @cached_property
    def _known(self) -> dict[str, range]:
        return {}


def _within(rows: range, table: range) -> bool:
    return table.start <= rows.start and rows.stop <= table.stop


def _read_rows(folder: DatasetFolder, video_keys: Sequence[str]) -> list[Row]:
    # Where lerobot looks: other tables, beside the folders of chunks, are somebody's own.
    files = [name for name in folder.files_below("meta/episodes") if PLACE.fullmatch(name)]
    if not files:
        raise DatasetError(
            f"{folder.name}/meta/episodes holds no tables: no episode was saved, or not all was copied"
        )
    plain = ["episode_index", "length", "dataset_from_index", "data/chunk_index", "data/file_index"]
    videos = {key: {name: f"videos/{key}/{name}" for name in VIDEO_COLUMNS} for key in video_keys}
    columns = plain + [column for names in videos.values() for column in names.values()]
    rows = []
    for name in files:
        path = folder.file(name)
        try:
            # One file only: given a path, pyarrow would also read hive partitions out of its folders' names.
            with pq.ParquetFile(path) as file:
                table = file.read(columns=[*columns, "tasks"])
            if missing := [column for column in columns if column not in table.column_names]:
                raise DatasetError(f"{path} has no column '{missing[0]}'; it is no episode table of v3.0")
            for values in table.to_pylist():
                rows.append(_row(values, videos))
        except ValidationError as error:
            raise DatasetError(f"{path}: {one_line(error, Row)}") from error
        except TABLE_ERRORS as error:
            raise DatasetError(f"{path} cannot be read ({first_line(error)})") from error
    return rows


def _row(values: dict[str, Any], videos: dict[str, dict[str, str]]) -> Row:
    places = {key: {name: values[c] for name, c in names.items()} for key, names in videos.items()}
    return Row.model_validate({"tasks": None, **values, "videos": places})
