"""Read a LeRobotDataset v3.0 with image features.

    meta/info.json                           features, fps, path templates
    meta/episodes/chunk-*/file-*.parquet     one row an episode: length, tasks, first and last frame
    data/chunk-*/file-*.parquet              one row a frame, images as encoded bytes

Tables are streamed through the `datasets` library: nothing is converted or copied to a cache folder.
"""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, UInt8
from PIL import Image, UnidentifiedImageError

from vla.cache.metadata import DatasetIdentity, Episode
from vla.embed.config import DatasetConfig
from vla.embed.sources.content import content_sha256
from vla.embed.sources.source import FrameBlock, FrameSource
from vla.errors import DatasetError, nearest

IMAGE_PREFIX = "observation.images."


class LeRobotV3Source(FrameSource):
    """A LeRobotDataset v3.0 directory.

    Args:
        config: path, cameras and keys.
        workers: threads that decode images.

    Raises:
        DatasetError: the directory, a camera or a key is not there, or features are stored as video.
    """

    def __init__(self, config: DatasetConfig, workers: int) -> None:
        self._config, self._workers = config, workers
        self._root = Path(config.path)
        self._info = read_info(self._root)
        self._features: dict[str, Any] = self._info["features"]
        for key in (config.state_key, config.action_key):
            if key not in self._features:
                raise DatasetError(f"{self._root} has no feature '{key}'; {nearest(key, self._features)}")
        self._image_keys = self._choose_cameras()

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(self._image_keys)

    @property
    def state_dim(self) -> int:
        return int(self._features[self._config.state_key]["shape"][0])

    @property
    def action_dim(self) -> int:
        return int(self._features[self._config.action_key]["shape"][0])

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        columns = ["episode_index", "length", "tasks", "dataset_from_index"]
        files = sorted((self._root / "meta/episodes").glob("*/*.parquet"))
        if not files:
            raise DatasetError(f"{self._root}/meta/episodes holds no tables; the dataset is incomplete")
        rows = [row for file in files for row in pq.read_table(file, columns=columns).to_pylist()]
        episodes = tuple(
            Episode(
                index=row["episode_index"],
                length=row["length"],
                first_frame=row["dataset_from_index"],
                task="; ".join(row["tasks"]),
            )
            for row in sorted(rows, key=lambda row: row["dataset_from_index"])
        )
        expected = 0
        for episode in episodes:
            if episode.first_frame != expected:
                raise DatasetError(
                    f"{self._root}: episode {episode.index} starts at frame {episode.first_frame}, "
                    f"expected {expected}; the episode table and the data do not belong together"
                )
            expected += episode.length
        return episodes

    def identity(self) -> DatasetIdentity:
        return DatasetIdentity(
            path=self._config.path,
            format="lerobot-v3.0",
            content_sha256=content_sha256(self._root, ["meta", "data"]),
            fps=self._info["fps"],
            state_key=self._config.state_key,
            action_key=self._config.action_key,
        )

    def read(self, frames: range, block: int) -> Iterator[FrameBlock]:
        files = sorted(str(path) for path in (self._root / "data").glob("*/*.parquet"))
        table = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        columns = [*self._image_keys.values(), self._config.state_key, self._config.action_key]
        columns += ["episode_index", "frame_index", "index"]
        rows = table.select_columns(columns).with_format("arrow").skip(frames.start).take(len(frames))
        expected = frames.start
        with ThreadPoolExecutor(self._workers) as pool:
            for batch in rows.iter(batch_size=block):
                index = batch["index"].to_numpy()
                if not np.array_equal(index, np.arange(expected, expected + len(index))):
                    raise DatasetError(f"{self._root}: frames near {expected} are not numbered consecutively")
                expected += len(index)
                yield self._decode(batch, pool)
        if expected != frames.stop:
            raise DatasetError(
                f"{self._root}: the data end at frame {expected}, the episodes go on to {frames.stop}; "
                "the dataset is incomplete"
            )

    def _decode(self, batch: pa.Table, pool: ThreadPoolExecutor) -> FrameBlock:
        episode_index = batch["episode_index"].to_numpy().astype(np.int32)
        frame_index = batch["frame_index"].to_numpy().astype(np.int32)
        images = {}
        for camera, key in self._image_keys.items():
            decoded: list[np.ndarray] = []
            for row, image in enumerate(pool.map(decode_image, batch[key].to_pylist())):
                if image is None or (decoded and image.shape != decoded[0].shape):
                    raise DatasetError(
                        f"{self._root}: camera '{camera}' at episode {episode_index[row]}, frame "
                        f"{frame_index[row]} is no image of the size of the frames before it"
                    )
                decoded.append(image)
            images[camera] = np.stack(decoded)
        return FrameBlock(
            images=images,
            state=self._vectors(batch, self._config.state_key),
            action=self._vectors(batch, self._config.action_key),
            episode_index=episode_index,
            frame_index=frame_index,
        )

    def _vectors(self, batch: pa.Table, key: str) -> Float32[np.ndarray, "n dim"]:
        values = np.asarray(batch[key].combine_chunks().flatten(), dtype=np.float32)
        dim = int(self._features[key]["shape"][0])
        if values.size != len(batch) * dim:
            raise DatasetError(
                f"{self._root}: '{key}' does not have {dim} values in every frame, as info.json says"
            )
        return values.reshape(len(batch), dim)

    def _choose_cameras(self) -> dict[str, str]:
        """Map camera names to feature keys, in the order asked for."""
        stored = {
            key.removeprefix(IMAGE_PREFIX): key
            for key, feature in self._features.items()
            if feature["dtype"] in ("image", "video")
        }
        for camera in self._config.cameras or stored:
            if camera not in stored:
                raise DatasetError(
                    f"{self._root} has no camera '{camera}'; its cameras: {', '.join(stored) or 'none'}"
                )
            if self._features[stored[camera]]["dtype"] == "video":
                raise DatasetError(f"{self._root}: camera '{camera}' is stored as video; vla reads images")
        if not stored:
            raise DatasetError(f"{self._root} has no image features; nothing to embed")
        return {camera: stored[camera] for camera in self._config.cameras or stored}


def read_info(root: Path) -> dict[str, Any]:
    """Read `meta/info.json` of a LeRobotDataset v3.0.

    Raises:
        DatasetError: it is missing, not JSON, or of another version.
    """
    path = root / "meta/info.json"
    if not path.is_file():
        raise DatasetError(
            f"no LeRobotDataset at {root} (it has no meta/info.json); "
            f"record one: vla record --task sim_transfer --out {root}"
        )
    try:
        info = json.loads(path.read_bytes())
        version, features, fps = info["codebase_version"], info["features"], info["fps"]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is not the info.json of a LeRobotDataset ({error!r})") from error
    if version != "v3.0" or not isinstance(features, dict) or not isinstance(fps, int | float):
        raise DatasetError(f"{path} is a LeRobotDataset {version}; vla reads v3.0")
    return dict(info)


def decode_image(cell: dict[str, Any]) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode one image cell to RGB; None if it is no image."""
    try:
        with Image.open(io.BytesIO(cell["bytes"])) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, TypeError):
        return None
