"""Reading a LeRobotDataset v3.0 with image features."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import CAMERAS, TASK, fake_images, write_dataset

from vla.base.errors import DatasetError
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.lerobot.info import Feature, LeRobotInfo


def opened(path: Path, **settings: object) -> FrameSource:
    return open_source(DatasetConfig.model_validate({"path": str(path), **settings}), workers=2)


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


def test_episodes_are_numbered_through(dataset: Path) -> None:
    source = opened(dataset)
    assert [(e.index, e.first_frame, e.length, e.task) for e in source.episodes] == [
        (0, 0, 5, TASK),
        (1, 5, 4, TASK),
    ]
    assert source.camera_names == CAMERAS
    assert [stream.shape for stream in source.streams] == [(256, 256, 3)] * 3 + [(16,)] * 2


def test_every_frame_is_decoded_exactly_and_in_order(dataset: Path) -> None:
    blocks = list(opened(dataset).read(range(9), block=4))
    assert [len(block) for block in blocks] == [4, 4, 1]
    top = np.concatenate([block.streams["top"] for block in blocks])
    assert np.array_equal(top, np.concatenate([fake_images(1, 5), fake_images(101, 4)]))
    assert np.concatenate([b.episode_index for b in blocks]).tolist() == [0] * 5 + [1] * 4
    assert np.concatenate([b.frame_index for b in blocks]).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    state = np.random.default_rng(1).normal(size=(4, 16)).astype(np.float32)
    assert np.array_equal(np.concatenate([b.streams["state"] for b in blocks])[5:], state)


def test_a_range_in_the_middle_is_read_alone(dataset: Path) -> None:
    (block,) = opened(dataset).read(range(4, 7), block=64)
    assert block.frame_index.tolist() == [4, 0, 1]
    assert np.array_equal(block.streams["front"][0], fake_images(2, 5)[4])


def test_cameras_are_chosen_and_ordered_by_name(dataset: Path) -> None:
    source = opened(dataset, cameras=["front", "top"])
    assert source.camera_names == ("front", "top")
    (block,) = source.read(range(1), block=8)
    assert list(block.streams) == ["front", "top", "state", "action"]


def test_identity_follows_content_not_place(dataset: Path, copy: Path) -> None:
    before = opened(dataset).identity()
    assert opened(copy).identity().content_sha256 == before.content_sha256
    path = copy / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    action = pa.array([[9.0] * 16] * 4, type=table.schema.field("action").type)
    pq.write_table(
        table.set_column(table.column_names.index("action"), table.schema.field("action"), action), path
    )
    assert opened(copy).identity().content_sha256 != before.content_sha256


def test_a_missing_camera_lists_those_there_are(dataset: Path) -> None:
    with pytest.raises(DatasetError, match="no camera 'wrist'; its cameras: r_vis, top, front"):
        opened(dataset, cameras=["wrist"])


def test_a_missing_dataset_says_how_to_record_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no dataset at .*nowhere .*vla record"):
        opened(tmp_path / "nowhere")


def test_a_missing_key_names_the_nearest(dataset: Path) -> None:
    with pytest.raises(DatasetError, match="no feature 'actions'; did you mean 'action'"):
        opened(dataset, action_key="actions")


def test_another_version_is_named(copy: Path) -> None:
    info = json.loads((copy / "meta/info.json").read_text())
    (copy / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    with pytest.raises(DatasetError, match=r"LeRobotDataset v1\.6; vla reads v3\.0"):
        opened(copy)


def test_a_damaged_image_is_named_by_camera_episode_and_frame(copy: Path) -> None:
    path = copy / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    cells = table["observation.images.top"].to_pylist()
    cells[2]["bytes"] = b"not a png"
    column = pa.array(cells, type=table.schema.field("observation.images.top").type)
    pq.write_table(table.set_column(1, table.schema.field("observation.images.top"), column), path)
    with pytest.raises(DatasetError, match="camera 'top' at episode 1, frame 2 is no image"):
        list(opened(copy).read(range(9), block=64))


def test_a_missing_table_is_named(copy: Path) -> None:
    (copy / "data/chunk-000/file-001.parquet").unlink()
    with pytest.raises(DatasetError, match=r"file-001\.parquet is missing; the dataset is incomplete"):
        list(opened(copy).read(range(9), block=64))


def test_episodes_that_do_not_join_up_are_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "demos", lengths=(2, 2), size=(8, 8))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1]["dataset_from_index"] = 3
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DatasetError, match="episode 1 starts at frame 3, expected 2"):
        _ = opened(root).episodes


def test_the_only_image_of_a_data_set_is_the_camera_image() -> None:
    columns = {"observation.image": "video", "observation.images.wrist": "image", "action": "float32"}
    info = LeRobotInfo(
        codebase_version="v3.0",
        fps=10,
        features={name: Feature(dtype=dtype) for name, dtype in columns.items()},
        data_path="data",
    )
    named = info.choose_cameras("demos", ())
    assert named == {"image": "observation.image", "wrist": "observation.images.wrist"}
