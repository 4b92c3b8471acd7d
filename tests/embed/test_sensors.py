"""Streams that need no encoder: sensors of LeRobot datasets and HDF5 episodes, down to the cache."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_datasets import Nested, png, readings, write_dataset, write_hdf5
from fakes import fake_images
from pydantic import ValidationError

from vla.base.errors import CacheError, DatasetError
from vla.cache import CacheConfig, FeatureCache, Stream
from vla.embed import DatasetConfig, PixelsConfig, embed
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import dataset_of
from vla.embed.datasets.lerobot import writer
from vla.embed.reencode import check_dataset, reencode_problems

SHAPES: dict[str, tuple[int, ...]] = {"lidar": (7, 4), "imu": (5, 6), "force": (3,)}
KINDS = {"lidar": "points", "imu": "series", "force": "vector"}
LENGTHS = (5, 4)


def sensors(prefix: str = "observation.") -> dict[str, dict[str, str]]:
    return {name: {"key": f"{prefix}{name}", "kind": kind} for name, kind in KINDS.items()}


def config(path: Path, **changes: Any) -> DatasetConfig:
    return DatasetConfig.model_validate({"path": str(path), "streams": sensors(), **changes})


def opened(path: Path, **changes: Any) -> FrameSource:
    return open_source(config(path, **changes), workers=1)


def written(root: Path, nested: Nested = "lists", version: str = "v3.0") -> Path:
    return write_dataset(
        root, LENGTHS, (8, 8), 3, cameras={"top": "image"}, sensors=SHAPES, nested=nested, version=version
    )


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    return written(tmp_path / "demos")


def truth(name: str) -> np.ndarray:
    return np.concatenate([readings(e, name, n, SHAPES[name]) for e, n in enumerate(LENGTHS)])


def read(source: FrameSource, name: str) -> np.ndarray:
    return np.concatenate([block.streams[name] for block in source.read(range(9), block=4)])


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize("nested", ["lists", "array2d", "flat"])
def test_lerobot_columns_are_read_whatever_way_they_are_nested(
    nested: Nested, version: str, tmp_path: Path
) -> None:
    source = opened(written(tmp_path / "demos", nested, version))
    assert [(s.name, s.kind, s.shape) for s in source.streams[1:4]] == [
        (name, KINDS[name], shape) for name, shape in SHAPES.items()
    ]
    assert all(np.array_equal(read(source, name), truth(name)) for name in SHAPES)


def test_hdf5_datasets_are_sensors_too(tmp_path: Path) -> None:
    demos = write_hdf5(tmp_path / "demos", LENGTHS, sensors=SHAPES)
    source = opened(demos, fps=25, streams=sensors("observations/"))
    assert list(source.keys) == ["front", "r_vis", "top", *SHAPES, "state", "action"]
    assert all(np.array_equal(read(source, name), truth(name)) for name in SHAPES)


def test_an_hdf5_sensor_of_another_shape_in_one_episode_is_refused(tmp_path: Path) -> None:
    demos = write_hdf5(tmp_path / "demos", LENGTHS, sensors=SHAPES)
    with h5py.File(demos / "episode_1.hdf5", "r+") as file:
        del file["observations/lidar"]
        file["observations/lidar"] = np.zeros((4, 6, 4), np.float32)
    with pytest.raises(DatasetError, match=r"has lidar of shape \[6, 4\], the first one \[7, 4\]"):
        opened(demos, fps=25, streams=sensors("observations/"))


def test_sensors_go_into_the_cache_as_they_are(demos: Path, tmp_path: Path) -> None:
    encoder = PixelsConfig(device="cpu", image_size=(4, 4))
    report = embed(config(demos), encoder, CacheConfig(path=str(tmp_path / "out"), shard_frames=4))
    cache = FeatureCache(report.cache)
    assert report.streams == ("top", *SHAPES, "state", "action")
    assert all(np.array_equal(cache.all(name), truth(name)) for name in SHAPES)
    assert cache.metadata.dataset.keys["lidar"] == "observation.lidar"
    mean = cache.metadata.statistics["lidar"].mean
    np.testing.assert_allclose(mean, truth("lidar").mean((0, 1)), atol=1e-6)
    again = dataset_of(cache)
    assert again.streams == config(demos).streams
    assert reencode_problems(cache, again, encoder, count=9) == ([], 0.0)


def test_other_sensor_values_are_noticed_when_a_cache_is_encoded_again(demos: Path, tmp_path: Path) -> None:
    encoder = PixelsConfig(device="cpu", image_size=(4, 4))
    cache = FeatureCache(embed(config(demos), encoder, CacheConfig(path=str(tmp_path / "out"))).cache)
    swapped = {**sensors(), "lidar": {"key": "observation.imu", "kind": "points"}}
    with pytest.raises(CacheError, match=r"is not what .* was made from, its content differs"):
        reencode_problems(cache, config(demos, streams=swapped), encoder, count=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lidar": {"key": "observation.lidr", "kind": "points"}}, "did you mean 'observation.lidar'"),
        ({"lidar": {"key": "observation.lidar", "kind": "vector"}}, r"may be: points, series, tokens"),
        ({"force": {"key": "observation.force", "kind": "series"}}, r"its kind may be: vector"),
        ({"top": {"key": "observation.lidar", "kind": "points"}}, "camera 'top' has a name that something"),
    ],
)
def test_a_sensor_that_is_not_there_or_something_else_is_refused(
    change: dict[str, Any], message: str, demos: Path
) -> None:
    with pytest.raises(DatasetError, match=message):
        opened(demos, streams=change)


@pytest.mark.parametrize("name", ["state", "action", "task", "episode_index", "frame_index", ""])
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="names something else; call the sensor otherwise"):
        config(Path(), streams={name: {"key": "observation.lidar", "kind": "points"}})


def with_lidar(demos: Path, values: list[Any]) -> None:
    path = demos / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    where = table.column_names.index("observation.lidar")
    pq.write_table(table.set_column(where, "observation.lidar", pa.array(values)), path)


@pytest.mark.parametrize("last", [[[1.0] * 4] * 6, [[1.0] * 3] * 7, None])
def test_a_frame_of_another_shape_is_refused(last: list[list[float]] | None, demos: Path) -> None:
    with_lidar(demos, [[[1.0] * 4] * 7] * 3 + [last])
    with pytest.raises(DatasetError, match=r"'observation\.lidar' does not have shape \[7, 4\] in every"):
        read(opened(demos), "lidar")


def test_a_sensor_that_is_not_finite_is_named_by_verify_and_not_cached(demos: Path, tmp_path: Path) -> None:
    values = [[[1.0] * 4] * 7] * 2 + [[[1.0] * 4] * 6 + [[1.0, 1.0, float("nan"), 1.0]]] + [[[1.0] * 4] * 7]
    with_lidar(demos, values)
    (problem,) = check_dataset(config(demos))["problems"]
    assert "lidar is not finite at episode 1, frame 2" in problem
    with pytest.raises(CacheError, match="'lidar' is not finite at episode 1, frame 2"):
        embed(config(demos), PixelsConfig(device="cpu"), CacheConfig(path=str(tmp_path / "out")))


def test_what_the_lerobot_writer_writes_of_sensors_is_read_back(tmp_path: Path) -> None:
    streams = [
        Stream(name=name, kind=KINDS[name], dtype="float32", shape=shape)  # type: ignore[arg-type]
        for name, shape in SHAPES.items()
    ]
    frames = fake_images(0, 5, (8, 8))
    rows: dict[str, Any] = {f"observation.{name}": truth(name)[:5].tolist() for name in SHAPES}
    rows["observation.images.top"] = [{"bytes": png(frame), "path": None} for frame in frames]
    rows |= {"observation.state": [[0.0, 1.0]] * 5, "action": [[2.0, 3.0]] * 5}
    rows |= {"next.reward": [0.0] * 5, "next.success": [True] * 5, "frame_index": list(range(5))}
    rows["timestamp"] = [k / 25 for k in range(5)]
    histograms = {"observation.images.top": np.ones((3, 256), np.int64)}
    episode = writer.EpisodeTable(frames=pa.table(rows), histograms=histograms)
    features = writer.make_features(["top"], (8, 8), ["x", "y"], streams)
    writer.write_dataset(tmp_path / "demos", features, 25, "do it", [episode])
    source = opened(tmp_path / "demos")
    (block,) = source.read(range(5), block=8)
    assert all(np.array_equal(block.streams[name], truth(name)[:5]) for name in SHAPES)
    assert np.array_equal(block.streams["top"], frames)
