"""The layout of a LeRobotDataset v3.0, with small made-up episodes."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_faults import file_size_limit

from vla.base.errors import WriteError
from vla.embed.datasets.lerobot import writer
from vla.embed.datasets.lerobot.writer import EpisodeTable, make_features, write_dataset
from vla.rollout.record.attempt import Outcome, encode_attempt, encode_png, histogram
from vla.rollout.worlds.sim_transfer.world import STATE_NAMES

CAMERA = "observation.images.top"
FEATURES = make_features(["top"], (4, 6), STATE_NAMES)


def fake_frames(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (length, 4, 6, 3), dtype=np.uint8)


def fake_episode(seed: int, length: int) -> EpisodeTable:
    frames = fake_frames(seed, length)
    rows: dict[str, list[Any]] = {
        CAMERA: [{"bytes": encode_png(frame), "path": None} for frame in frames],
        "observation.state": [[seed + 0.5 * i] * 16 for i in range(length)],
        "action": [[float(seed)] * 16] * length,
        "next.reward": [1.0] * length,
        "next.success": [False] * (length - 1) + [True],
        "timestamp": [i / 25 for i in range(length)],
        "frame_index": list(range(length)),
    }
    counts = np.sum([histogram(frame) for frame in frames], axis=0)
    outcome = Outcome(seed=seed, success=True, max_stage=4, histograms={CAMERA: counts.tolist()})
    table = pq.read_table(pa.BufferReader(encode_attempt(rows, outcome))).replace_schema_metadata()
    return EpisodeTable(frames=table, histograms={CAMERA: counts})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    episodes = [fake_episode(seed=1, length=3), fake_episode(seed=2, length=2)]
    assert write_dataset(tmp_path / "demos", FEATURES, 25, "do it", episodes) == 5
    return tmp_path / "demos"


def test_the_datasets_library_decodes_the_same_pixels(root: Path) -> None:
    files = [str(path) for path in sorted(root.glob("data/*/*.parquet"))]
    rows = list(datasets.load_dataset("parquet", data_files=files, split="train", streaming=True))
    images = np.stack([np.asarray(row[CAMERA]) for row in rows])
    np.testing.assert_array_equal(images, np.concatenate([fake_frames(1, 3), fake_frames(2, 2)]))
    assert [row["observation.state"][0] for row in rows] == [1.0, 1.5, 2.0, 2.0, 2.5]


def test_frames_are_numbered_through_the_data_set_and_within_episodes(root: Path) -> None:
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert table.column_names == list(FEATURES)
    assert table["index"].to_pylist() == [0, 1, 2, 3, 4]
    assert table["episode_index"].to_pylist() == [0, 0, 0, 1, 1]
    assert table["frame_index"].to_pylist() == [0, 1, 2, 0, 1]


def test_an_episode_is_a_row_group(root: Path) -> None:
    metadata = pq.read_metadata(root / "data/chunk-000/file-000.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [3, 2]


def test_the_episode_table_says_where_each_episode_lies(root: Path) -> None:
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["length"] for row in rows] == [3, 2]
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [(0, 3), (3, 5)]
    assert [row["tasks"] for row in rows] == [["do it"], ["do it"]]
    assert rows[1]["stats/observation.state/mean"] == [2.25] * 16
    assert np.shape(rows[0][f"stats/{CAMERA}/std"]) == (3, 1, 1)


def test_info_counts_and_describes(root: Path) -> None:
    info = json.loads((root / "meta/info.json").read_bytes())
    assert (info["codebase_version"], info["fps"]) == ("v3.0", 25)
    assert (info["total_episodes"], info["total_frames"], info["splits"]) == (2, 5, {"train": "0:2"})
    assert info["features"][CAMERA]["shape"] == [4, 6, 3]
    assert info["features"]["action"]["names"] == list(STATE_NAMES)


def test_actions_may_be_other_numbers_than_states() -> None:
    columns = make_features(["top"], (8, 8), ["x", "y", "z"], action_names=["dx", "grip"])
    assert (columns["observation.state"]["shape"], columns["action"]["shape"]) == ([3], [2])
    assert columns["action"]["names"] == ["dx", "grip"]
    alike = make_features(["top"], (8, 8), ["x", "y"])
    assert alike["action"] == alike["observation.state"]


def test_statistics_of_the_whole_are_exact(root: Path) -> None:
    stats = json.loads((root / "meta/stats.json").read_bytes())
    pixels = np.concatenate([fake_frames(1, 3).reshape(-1, 3), fake_frames(2, 2).reshape(-1, 3)]) / 255
    np.testing.assert_allclose(np.ravel(stats[CAMERA]["mean"]), pixels.mean(axis=0))
    assert stats["observation.state"]["mean"] == [pytest.approx(1.8)] * 16
    assert set(stats) == set(FEATURES)


def test_the_task_text_is_the_index_of_the_task_table(root: Path) -> None:
    tasks = pd.read_parquet(root / "meta/tasks.parquet")
    assert tasks.loc["do it"].task_index == 0


def test_a_full_file_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FILE_MEGABYTES", 0)
    monkeypatch.setattr(writer, "FILES_PER_CHUNK", 2)
    write_dataset(tmp_path / "demos", FEATURES, 25, "do it", [fake_episode(n, 2) for n in range(3)])
    found = sorted(str(path.relative_to(tmp_path / "demos/data")) for path in tmp_path.rglob("data/*/*"))
    assert found == [
        "chunk-000/file-000.parquet",
        "chunk-000/file-001.parquet",
        "chunk-001/file-000.parquet",
    ]
    rows = pq.read_table(tmp_path / "demos/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["data/chunk_index"], row["data/file_index"]) for row in rows] == [(0, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("owner", "function", "file"),
    [
        (pq.ParquetWriter, "write_table", "data/chunk-000/file-000.parquet"),
        (pq.ParquetWriter, "close", "data/chunk-000/file-000.parquet"),
        (pq, "write_table", "meta/episodes/chunk-000/file-000.parquet"),
        (pd.DataFrame, "to_parquet", "meta/tasks.parquet"),
    ],
)
def test_a_full_disk_is_one_line_that_names_the_file_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, function: str, file: str
) -> None:
    write = getattr(owner, function)

    def full(*arguments: Any, **options: Any) -> None:
        with file_size_limit(10):
            write(*arguments, **options)

    monkeypatch.setattr(owner, function, full)
    with pytest.raises(WriteError) as caught:
        write_dataset(tmp_path / "demos", FEATURES, 25, "do it", [fake_episode(1, 3)])
    assert str(caught.value) == (
        f"{tmp_path / 'demos' / file} cannot be written (File too large); finished work is kept: "
        "make room or change --out, then run the same command"
    )
