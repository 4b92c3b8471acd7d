"""Write a LeRobotDataset v3.0 with image features, and with sensors if there are any.

    data/chunk-000/file-000.parquet           one row a frame, one row group an episode, about 100 MB a file
    meta/info.json                            features, fps, counts, path templates
    meta/stats.json                           statistics of every feature over the whole data set
    meta/tasks.parquet                        task text (the pandas index) -> task_index
    meta/episodes/chunk-000/file-000.parquet  one row an episode: length, tasks, place, statistics

Images are stored as the bytes of PNG files, in the columns' type that the `datasets` library decodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from vla.base.files import write_json, writing
from vla.cache.stream import Stream
from vla.embed.datasets.lerobot.statistics import Statistics, image_statistics, vector_statistics

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
TASKS_PATH = "meta/tasks.parquet"
FILE_MEGABYTES = 100
FILES_PER_CHUNK = 1000
INDEX_FEATURES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""The columns that every LeRobotDataset has, last."""

Feature = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EpisodeTable:
    """One episode to be written."""

    frames: pa.Table
    """All columns of the features except `episode_index`, `index` and `task_index`."""
    histograms: Mapping[str, Int64[np.ndarray, "3 256"]]
    """Per image column, how many pixels of each channel have each value."""
    task: str = ""
    """What this episode is about, in words; empty is what all of them are about."""


def make_features(
    cameras: Sequence[str],
    image_size: tuple[int, int],
    state_names: Sequence[str],
    sensors: Sequence[Stream] = (),
    action_names: Sequence[str] = (),
) -> dict[str, Feature]:
    """Describe the columns, as `info.json` does.

    Args:
        cameras: names of the views.
        image_size: height and width [pixel].
        state_names: names of the numbers in a state.
        sensors: further streams, each in the column that its key names, else in `observation.<name>`; a
            frame of it is a list, or a list of lists.
        action_names: names of the numbers in an action; empty: those of a state.
    """
    image = {"dtype": "image", "shape": [*image_size, 3], "names": ["height", "width", "channels"]}
    features: dict[str, Feature] = {f"observation.images.{camera}": image for camera in cameras}
    for sensor in sensors:
        features[sensor.key or f"observation.{sensor.name}"] = {
            "dtype": sensor.dtype,
            "shape": list(sensor.shape),
            "names": None,
        }
    features |= {"observation.state": _vector(state_names), "action": _vector(action_names or state_names)}
    features |= {"next.reward": _scalar("float32"), "next.success": _scalar("bool")}
    for name in INDEX_FEATURES:
        features[name] = _scalar("float32" if name == "timestamp" else "int64")
    return features


def write_dataset(
    root: Path,
    features: Mapping[str, Feature],
    fps: int,
    task: str,
    episodes: Iterable[EpisodeTable],
    robot_type: str | None = None,
) -> int:
    """Write a whole data set into the new directory `root`; return the number of frames.

    Args:
        root: must not exist.
        features: the columns; see `make_features`.
        fps: frames a second.
        task: what episodes are about that do not say so themselves, in words.
        episodes: consumed one at a time, so that memory holds no more than one.
        robot_type: what moves; None if nobody said.

    Raises:
        WriteError: the disk is full, or may not be written.
    """
    root.mkdir(parents=True)
    schema = _schema(features)
    image_keys = [key for key, feature in features.items() if feature["dtype"] == "image"]
    other_keys = [key for key in features if key not in image_keys]
    totals = {key: np.zeros((3, 256), np.int64) for key in image_keys}
    columns: dict[str, list[Float64[np.ndarray, "_frames ..."]]] = {key: [] for key in other_keys}
    rows: list[dict[str, Any]] = []
    tasks: dict[str, int] = {}
    frames = 0
    with _DataFiles(root, schema) as files:
        for episode in episodes:
            text = episode.task or task
            number = tasks.setdefault(text, len(tasks))
            table = _complete(episode.frames, len(rows), frames, number).select(schema.names).cast(schema)
            chunk_index, file_index = files.write(table)
            vectors = {key: _numbers(table[key], features[key]) for key in other_keys}
            statistics = {key: vector_statistics(values) for key, values in vectors.items()}
            for key in image_keys:
                totals[key] += episode.histograms[key]
                statistics[key] = image_statistics(episode.histograms[key], len(table))
            for key, values in vectors.items():
                columns[key].append(values)
            rows.append(
                {
                    "episode_index": len(rows),
                    "tasks": [text],
                    "length": len(table),
                    "data/chunk_index": chunk_index,
                    "data/file_index": file_index,
                    "dataset_from_index": frames,
                    "dataset_to_index": frames + len(table),
                    **_flatten({key: statistics[key] for key in features}),
                    "meta/episodes/chunk_index": 0,
                    "meta/episodes/file_index": 0,
                }
            )
            frames += len(table)
    whole = {key: image_statistics(totals[key], frames) for key in image_keys}
    whole |= {key: vector_statistics(np.concatenate(parts)) for key, parts in columns.items()}
    with writing(root / EPISODES_PATH):
        (root / EPISODES_PATH).parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), root / EPISODES_PATH)
    with writing(root / TASKS_PATH):
        pd.DataFrame({"task_index": list(tasks.values())}, index=list(tasks)).to_parquet(root / TASKS_PATH)
    write_json(root / "meta/stats.json", {key: whole[key] for key in features})
    write_json(root / "meta/info.json", _info(features, fps, len(rows), frames, len(tasks), robot_type))
    return frames


class _DataFiles:
    """Parquet files, a new one whenever the present one is full."""

    def __init__(self, root: Path, schema: pa.Schema) -> None:
        self._root, self._schema = root, schema
        self._writer: Any = None
        self._path = root
        self._number = -1
        self._bytes = 0

    def __enter__(self) -> "_DataFiles":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def write(self, table: pa.Table) -> tuple[int, int]:
        """Append one row group; return the numbers of chunk and file."""
        if self._writer is None or self._bytes + table.nbytes > FILE_MEGABYTES * 2**20:
            self._open_next()
        self._bytes += table.nbytes
        with writing(self._path):
            self._writer.write_table(table, row_group_size=len(table))
        return self._place()

    def _place(self) -> tuple[int, int]:
        return divmod(self._number, FILES_PER_CHUNK)

    def _close(self) -> None:
        if self._writer is not None:
            with writing(self._path):
                self._writer.close()

    def _open_next(self) -> None:
        self._close()
        self._number += 1
        self._bytes = 0
        chunk_index, file_index = self._place()
        self._path = self._root / DATA_PATH.format(chunk_index=chunk_index, file_index=file_index)
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                self._path,
                self._schema,
                compression="snappy",
                use_dictionary=False,  # of PNG bytes it would be a second copy
                write_statistics=list(INDEX_FEATURES),  # those of images would be whole images
            )


def _complete(frames: pa.Table, episode_index: int, first_index: int, task_index: int) -> pa.Table:
    """Add the columns that depend on the episodes before."""
    count = len(frames)
    return (
        frames.append_column("episode_index", pa.array(np.full(count, episode_index)))
        .append_column("index", pa.array(np.arange(first_index, first_index + count)))
        .append_column("task_index", pa.array(np.full(count, task_index)))
    )


def _schema(features: Mapping[str, Feature]) -> pa.Schema:
    """Return the schema whose metadata tells `datasets` how to decode the columns."""
    columns: dict[str, Any] = {}
    for key, feature in features.items():
        if feature["dtype"] == "image":
            columns[key] = datasets.Image()
        elif feature["shape"] == [1]:
            columns[key] = datasets.Value(feature["dtype"])
        elif len(feature["shape"]) == 2:
            columns[key] = datasets.Array2D(tuple(feature["shape"]), feature["dtype"])
        else:
            columns[key] = datasets.Sequence(datasets.Value(feature["dtype"]), length=feature["shape"][0])
    return datasets.Features(columns).arrow_schema


def _numbers(column: pa.ChunkedArray, feature: Feature) -> Float64[np.ndarray, "frames ..."]:
    values = column.combine_chunks()
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    found = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return found.reshape(len(column), *feature["shape"])


def _flatten(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    return {f"stats/{key}/{name}": value for key, all_ in statistics.items() for name, value in all_.items()}


def _info(
    features: Mapping[str, Feature], fps: int, episodes: int, frames: int, tasks: int, robot_type: str | None
) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": robot_type,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": FILE_MEGABYTES,
        "video_files_size_in_mb": 200,  # LeRobot's default; there are no videos
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": dict(features),
    }


def _vector(names: Sequence[str]) -> Feature:
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def _scalar(dtype: str) -> Feature:
    return {"dtype": dtype, "shape": [1], "names": None}
