"""The layout of LeRobotDataset v3.0: many episodes a file.

meta/info.json                           features, fps, path templates
meta/episodes/chunk-*/file-*.parquet     one row an episode: length, tasks, files, first and last frame
data/chunk-*/file-*.parquet              one row a frame, images as encoded bytes
videos/<key>/chunk-*/file-*.mp4          episodes one after the other, each from its `from_timestamp`
"""

from collections.abc import Sequence
from typing import Annotated, Any

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder, fill_template
from vla.embed.datasets.lerobot.info import LeRobotInfo, one_line
from vla.embed.datasets.lerobot.tables import TABLE_ERRORS, EpisodeFiles, Rows, first_line
from vla.embed.datasets.video import VideoSpan

Count = Annotated[int, Field(ge=0)]
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
    length: Annotated[int, Field(ge=1)]
    tasks: list[str]
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
    rows = sorted(_read_rows(folder, video_keys), key=lambda row: row.dataset_from_index)
    expected = 0
    for row in rows:
        if row.dataset_from_index != expected:
            raise DatasetError(
                f"{folder.name}: episode {row.episode_index} starts at frame {row.dataset_from_index}, "
                f"expected {expected}; the episode table and the data do not belong together"
            )
        expected += row.length
    return [_locate(folder, info, row) for row in rows]


def _locate(folder: DatasetFolder, info: LeRobotInfo, row: Row) -> EpisodeFiles:
    table = fill_template(info.data_path, {"chunk_index": row.data_chunk, "file_index": row.data_file})
    videos = {}
    for key, video in row.videos.items():
        # The last frame starts a frame before the end; half of one is left for rounding.
        duration_s = video.to_timestamp - video.from_timestamp
        if (row.length - 0.5) / info.fps > duration_s:
            raise DatasetError(
                f"{folder.name}: episode {row.episode_index} has {row.length} frames, which take "
                f"{row.length / info.fps:.3f} s; its video of '{key}' takes {duration_s:.3f} s"
            )
        file = info.video_file(folder.name, key, chunk_index=video.chunk_index, file_index=video.file_index)
        videos[key] = VideoSpan(file, video.from_timestamp)
    return EpisodeFiles(
        index=row.episode_index,
        length=row.length,
        task="; ".join(row.tasks),
        rows=Rows((table,), "index", row.dataset_from_index, row.dataset_from_index + row.length),
        videos=videos,
    )


def _read_rows(folder: DatasetFolder, video_keys: Sequence[str]) -> list[Row]:
    files = [name for name in folder.files_below("meta/episodes") if name.endswith(".parquet")]
    if not files:
        raise DatasetError(f"{folder.name}/meta/episodes holds no tables; the dataset is incomplete")
    plain = ["episode_index", "length", "tasks", "dataset_from_index", "data/chunk_index", "data/file_index"]
    videos = {key: {name: f"videos/{key}/{name}" for name in VIDEO_COLUMNS} for key in video_keys}
    columns = plain + [column for names in videos.values() for column in names.values()]
    rows = []
    for name in files:
        path = folder.file(name)
        try:
            # One file only: given a path, pyarrow would also read hive partitions out of its folders' names.
            with pq.ParquetFile(path) as file:
                table = file.read(columns=columns)
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
    return Row.model_validate({**values, "videos": places})
