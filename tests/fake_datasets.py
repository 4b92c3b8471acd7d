"""Small demonstrations in every format that vla reads, written without vla's own code.

Videos are lossless RGB, so that a decoded frame can be compared with the one that was written.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import av
import datasets
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CAMERAS = ("r_vis", "top", "front")
TASK = "Pick the red box."
FPS = 25
NUMBERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
TABLE_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
TABLE_V21 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_V21 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

Kind = Literal["image", "video"]
Nested = Literal["lists", "array2d", "flat"]


def fake_images(seed: int, count: int, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """Random smooth RGB images, uint8 [count, H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)) for image in coarse]
    )


def camera_images(episode: int, camera: int, count: int, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """What the k-th camera of a fake dataset sees in an episode."""
    return fake_images(100 * episode + camera, count, size)


def vectors(episode: int, length: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """State and action of an episode of a fake dataset, float32 [length, dim]."""
    rng = np.random.default_rng(episode)
    state = rng.normal(size=(length, dim)).astype(np.float32)
    return state, rng.normal(size=(length, dim)).astype(np.float32)


def readings(episode: int, name: str, length: int, shape: Sequence[int]) -> np.ndarray:
    """What a sensor of a fake dataset says in an episode, float32 [length, *shape]."""
    rng = np.random.default_rng([episode, *name.encode()])
    return rng.normal(size=(length, *shape)).astype(np.float32)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: int = FPS,
    codec: str = "libx264rgb",
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write uint8 [T, H, W, 3] as mp4; without codec and options as lossless RGB with a keyframe in six."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = dict(options) if options else {"qp": "0", "g": "6", "preset": "ultrafast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={**chosen, "threads": "1"})
        stream.pix_fmt = "rgb24" if codec == "libx264rgb" else "yuv420p"
        stream.height, stream.width = frames.shape[1:3]
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_dataset(
    root: Path,
    lengths: Sequence[int] = (5, 4),
    size: tuple[int, int] = (256, 256),
    state_dim: int = 16,
    *,
    version: str = "v3.0",
    cameras: Mapping[str, Kind] | None = None,
    episodes_per_file: int = 1,
    sensors: Mapping[str, Sequence[int]] | None = None,
    nested: Nested = "lists",
    shows: Sequence[int] | None = None,
) -> Path:
    """Write a LeRobotDataset; v2.1 always has a file an episode.

    Episode k holds what episode `shows[k]` of another fake dataset does; as a rule its own.

    Sensors are columns `observation.<name>`, given by the shape of a frame: `nested` as lists of lists, as
    the `Array2D` of the `datasets` library, or flat, when only info.json knows the shape.
    """
    shown = range(len(lengths)) if shows is None else shows
    kinds: dict[str, Kind] = dict(cameras) if cameras else dict.fromkeys(CAMERAS, "image")
    per_file = episodes_per_file if version == "v3.0" else 1
    sensors = sensors or {}
    features = _features(kinds, size, state_dim)
    for name, shape in sensors.items():
        features[f"observation.{name}"] = {"dtype": "float32", "shape": list(shape), "names": None}
    info: dict[str, Any] = {
        "codebase_version": version,
        "fps": FPS,
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "chunks_size": 1000,
        "data_path": TABLE_V3 if version == "v3.0" else TABLE_V21,
        "video_path": (VIDEO_V3 if version == "v3.0" else VIDEO_V21) if "video" in kinds.values() else None,
        "features": features,
    }
    rows: list[dict[str, Any]] = []
    for first in range(0, len(lengths), per_file):
        group = range(first, min(first + per_file, len(lengths)))
        place = {
            "chunk_index": 0,
            "file_index": first // per_file,
            "episode_chunk": 0,
            "episode_index": first,
        }
        tables = [
            _with_sensors(
                _table(episode, lengths, kinds, size, state_dim, shown[episode]),
                shown[episode],
                sensors,
                nested,
            )
            for episode in group
        ]
        path = root / info["data_path"].format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A row group an episode, as LeRobot writes.
        with pq.ParquetWriter(path, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table)
        for k, (camera, kind) in enumerate(kinds.items()):
            if kind == "video":
                key = f"observation.images.{camera}"
                frames = np.concatenate([camera_images(shown[e], k, lengths[e], size) for e in group])
                write_video(root / info["video_path"].format(video_key=key, **place), frames)
        rows += [_row(episode, first, lengths, kinds, place["file_index"]) for episode in group]
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps(info))
    if version == "v3.0":
        (root / "meta/episodes/chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
        tasks = pd.DataFrame({"task_index": [0]}, index=pd.Index([TASK], name="task"))
        tasks.to_parquet(root / "meta/tasks.parquet")
    else:
        lines = [{key: row[key] for key in ("episode_index", "tasks", "length")} for row in rows]
        _write_lines(root / "meta/episodes.jsonl", lines)
        _write_lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": TASK}])
    return root


def write_hdf5(
    root: Path,
    lengths: Sequence[int] = (5, 4),
    size: tuple[int, int] = (48, 64),
    state_dim: int = 14,
    *,
    storage: Literal["raw", "padded", "strings", "varying"] = "raw",
    task: str | None = TASK,
    sensors: Mapping[str, Sequence[int]] | None = None,
    numbers: Sequence[int] | None = None,
) -> Path:
    """Write ACT's folder of episodes, numbered as told, its images raw or as JPEG in one of three forms."""
    root.mkdir(parents=True, exist_ok=True)
    for episode, length in enumerate(lengths):
        number = episode if numbers is None else numbers[episode]
        with h5py.File(root / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = True
            if task is not None:
                file.attrs["task"] = task
            for k, camera in enumerate(CAMERAS):
                images = camera_images(episode, k, length, size)
                name = f"observations/images/{camera}"
                encoded = [jpeg(image) for image in images]
                if storage == "raw":
                    file.create_dataset(name, data=images, chunks=(1, *size, 3))
                elif storage == "padded":
                    longest = max(map(len, encoded))
                    rows = [np.frombuffer(row.ljust(longest, b"\0"), np.uint8) for row in encoded]
                    file.create_dataset(name, data=np.stack(rows))
                elif storage == "strings":
                    file.create_dataset(name, data=np.array(encoded))
                else:
                    stored = file.create_dataset(name, (length,), dtype=h5py.vlen_dtype(np.uint8))
                    for row, data in enumerate(encoded):
                        stored[row] = np.frombuffer(data, np.uint8)
            state, action = vectors(episode, length, state_dim)
            file["observations/qpos"] = state.astype(np.float64)
            file["observations/qvel"] = np.zeros_like(state)
            file["action"] = action.astype(np.float64)
            for name, shape in (sensors or {}).items():
                file[f"observations/{name}"] = readings(episode, name, length, shape)
    return root


def _features(kinds: Mapping[str, Kind], size: tuple[int, int], state_dim: int) -> dict[str, Any]:
    vector = {"dtype": "float32", "shape": [state_dim], "names": None}
    features: dict[str, Any] = {
        f"observation.images.{camera}": {
            "dtype": kind,
            "shape": [*size, 3],
            "names": ["height", "width", "channels"],
        }
        for camera, kind in kinds.items()
    }
    features |= {"observation.state": vector, "action": vector}
    return features | {
        name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1]} for name in NUMBERS
    }


def _table(
    episode: int,
    lengths: Sequence[int],
    kinds: Mapping[str, Kind],
    size: tuple[int, int],
    state_dim: int,
    shown: int,
) -> pa.Table:
    length, first = lengths[episode], sum(lengths[:episode])
    columns: dict[str, Any] = {}
    types: dict[str, Any] = {}
    for k, (camera, kind) in enumerate(kinds.items()):
        if kind == "image":
            key, images = f"observation.images.{camera}", camera_images(shown, k, length, size)
            columns[key] = [{"bytes": png(image), "path": None} for image in images]
            types[key] = datasets.Image()
    for key, values in zip(("observation.state", "action"), vectors(shown, length, state_dim), strict=True):
        columns[key] = list(values)
        types[key] = datasets.Sequence(datasets.Value("float32"), length=state_dim)
    columns |= {
        "timestamp": [i / FPS for i in range(length)],
        "frame_index": list(range(length)),
        "episode_index": [episode] * length,
        "index": list(range(first, first + length)),
        "task_index": [0] * length,
    }
    types |= {name: datasets.Value("float32" if name == "timestamp" else "int64") for name in NUMBERS}
    return pa.table(columns, schema=datasets.Features(types).arrow_schema)


def _with_sensors(
    table: pa.Table, episode: int, sensors: Mapping[str, Sequence[int]], nested: Nested
) -> pa.Table:
    for name, shape in sensors.items():
        values = readings(episode, name, len(table), shape)
        if nested == "flat":
            values = values.reshape(len(table), -1)
        column = pa.array(values.tolist(), _list_type(values.ndim - 1))
        if nested == "array2d" and len(shape) == 2:
            kind = datasets.Array2D(tuple(shape), "float32")()
            column = pa.ExtensionArray.from_storage(kind, column.cast(kind.storage_type))
        table = table.append_column(f"observation.{name}", column)
    return table


def _list_type(depth: int) -> pa.DataType:
    return pa.list_(_list_type(depth - 1)) if depth else pa.float32()


def _row(
    episode: int, first_of_file: int, lengths: Sequence[int], kinds: Mapping[str, Kind], file_index: int
) -> dict[str, Any]:
    start, before = sum(lengths[:episode]), sum(lengths[first_of_file:episode])
    row: dict[str, Any] = {
        "episode_index": episode,
        "tasks": [TASK],
        "length": lengths[episode],
        "data/chunk_index": 0,
        "data/file_index": file_index,
        "dataset_from_index": start,
        "dataset_to_index": start + lengths[episode],
    }
    for camera, kind in kinds.items():
        if kind == "video":
            prefix = f"videos/observation.images.{camera}"
            row |= {f"{prefix}/chunk_index": 0, f"{prefix}/file_index": file_index}
            row[f"{prefix}/from_timestamp"] = before / FPS
            row[f"{prefix}/to_timestamp"] = (before + lengths[episode]) / FPS
    return row


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
