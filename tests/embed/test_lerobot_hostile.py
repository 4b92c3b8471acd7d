"""Metadata of LeRobot datasets that are damaged, or mean harm: one line that names the file."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_datasets import write_dataset

from vla.base.errors import DatasetError
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.lerobot import info, tables

EPISODES = "meta/episodes/chunk-000/file-000.parquet"
TABLE = "data/chunk-000/file-001.parquet"


def opened(path: Path, **settings: object) -> FrameSource:
    return open_source(DatasetConfig.model_validate({"path": str(path), **settings}), workers=2)


def everything(path: Path) -> None:
    """Open a dataset, identify it and read it all."""
    source = opened(path)
    source.identity()
    list(source.read(range(sum(episode.length for episode in source.episodes)), block=4))


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "demos", (5, 4), (8, 8), 3, cameras={"top": "image", "front": "video"})


@pytest.fixture
def demos_v21(tmp_path: Path) -> Path:
    kinds: Any = {"top": "image", "front": "video"}
    return write_dataset(tmp_path / "demos21", (5, 4), (8, 8), 3, version="v2.1", cameras=kinds)


def change_info(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_episode(root: Path, **changes: object) -> None:
    rows = pq.read_table(root / EPISODES).to_pylist()
    rows[1] |= {name.replace("__", "/"): value for name, value in changes.items()}
    pq.write_table(pa.Table.from_pylist(rows), root / EPISODES)


def change_column(root: Path, name: str, values: pa.Array) -> None:
    table = pq.read_table(root / TABLE)
    where = table.column_names.index(name)
    pq.write_table(
        table.set_column(where, pa.field(name, values.type), values).replace_schema_metadata(None),
        root / TABLE,
    )


def test_unchanged_they_are_read(demos: Path, demos_v21: Path) -> None:
    everything(demos)
    everything(demos_v21)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100000, "is not JSON"),
        ("[1, 2]", "should be"),
        ('{"codebase_version": "v3.0"}', "key 'fps' is missing"),
        ("\udce4".encode(errors="surrogateescape").decode("latin-1"), "is not JSON"),
    ],
)
def test_info_that_is_none_is_named(demos: Path, text: str, message: str) -> None:
    (demos / "meta/info.json").write_text(text)
    with pytest.raises(DatasetError, match=rf"meta/info\.json: .*{message}") as caught:
        opened(demos)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": "fast"}, "'fps' = 'fast' is not valid"),
        ({"fps": 0}, "'fps' = 0 is not valid"),
        ({"fps": 1e400}, "'fps'"),
        ({"features": []}, "'features'"),
        ({"features": {"observation.state": 5}}, r"'features\.observation\.state'"),
        ({"data_path": None}, "'data_path'"),
        ({"codebase_version": "v9.0"}, r"LeRobotDataset v9\.0; vla reads v3\.0, v2\.1, v2\.0"),
    ],
)
def test_info_of_the_wrong_form_is_answered_with_the_key(
    demos: Path, changes: dict[str, Any], message: str
) -> None:
    change_info(demos, **changes)
    with pytest.raises(DatasetError, match=message):
        opened(demos)


def test_an_enormous_info_is_not_read(demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "MAX_INFO_BYTES", 100)
    with pytest.raises(DatasetError, match="it describes no dataset"):
        opened(demos)


@pytest.mark.parametrize("shape", [[], [3, 4], [0], [-1], [65537], None])
def test_a_state_that_is_no_vector_is_refused(demos: Path, shape: list[int] | None) -> None:
    features = json.loads((demos / "meta/info.json").read_text())["features"]
    features["observation.state"]["shape"] = shape
    change_info(demos, features=features)
    with pytest.raises(DatasetError, match=r"'observation\.state' .*has shape .* takes vectors"):
        opened(demos)


def test_frames_a_second_that_contradict_the_dataset_are_refused(demos: Path) -> None:
    with pytest.raises(DatasetError, match="says 25 frames a second, the configuration 30"):
        opened(demos, fps=30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_path": "/etc/{chunk_index:03d}passwd"}, "leads out of the dataset"),
        ({"data_path": "../{chunk_index}.parquet"}, "leads out of the dataset"),
        ({"data_path": "{chunk_index.__init__}"}, "path template"),
        ({"video_path": "../../{video_key}/x.mp4"}, "leads out of the dataset"),
        ({"video_path": "{video_key.upper}.mp4"}, "path template"),
    ],
)
def test_path_templates_do_not_lead_out(demos: Path, changes: dict[str, str], message: str) -> None:
    change_info(demos, **changes)
    with pytest.raises(DatasetError, match=message):
        everything(demos)


@pytest.mark.parametrize("changes", [{"data_path": "/etc/{episode_index}"}, {"video_path": "../{video_key}"}])
def test_path_templates_of_v21_do_not_lead_out(demos_v21: Path, changes: dict[str, str]) -> None:
    change_info(demos_v21, **changes)
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        everything(demos_v21)


def test_a_feature_name_does_not_lead_out(demos: Path) -> None:
    found = json.loads((demos / "meta/info.json").read_text())
    key = "observation.images.../../../../etc"
    found["features"][key] = found["features"].pop("observation.images.front")
    change_info(demos, features=found["features"])
    table = pq.read_table(demos / EPISODES)
    names = [name.replace("observation.images.front", key) for name in table.column_names]
    pq.write_table(table.rename_columns(names), demos / EPISODES)
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        everything(demos)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": -4}, r"file-000\.parquet: 'length' = -4 is not valid"),
        ({"length": 10**12}, "1000000000000 frames, which take"),
        ({"episode_index": 0}, "two episodes of the same number"),
        ({"tasks": 3}, "'tasks'"),
        ({"data__file_index": -1}, "'data/file_index' = -1 is not valid"),
        ({"data__file_index": None}, "'data/file_index' = None is not valid"),
        ({"videos__observation.images.front__from_timestamp": float("nan")}, "from_timestamp"),
        ({"videos__observation.images.front__to_timestamp": 0.0}, r"takes 0\.000 s"),
    ],
)
def test_episode_tables_of_the_wrong_form_are_named(
    demos: Path, changes: dict[str, Any], message: str
) -> None:
    if "tasks" in changes or "data__file_index" in changes:  # a column has one type
        table = pq.read_table(demos / EPISODES).to_pylist()
        name, value = next(iter(changes.items()))
        rows = [row | {name.replace("__", "/"): value} for row in table]
        pq.write_table(pa.Table.from_pylist(rows), demos / EPISODES)
    else:
        change_episode(demos, **changes)
    with pytest.raises(DatasetError, match=message):
        everything(demos)


def test_a_missing_column_of_the_episode_table_is_named(demos: Path) -> None:
    pq.write_table(pq.read_table(demos / EPISODES).drop_columns(["data/file_index"]), demos / EPISODES)
    with pytest.raises(DatasetError, match=r"no column 'data/file_index'; it is no episode table of v3\.0"):
        _ = opened(demos).episodes


@pytest.mark.parametrize("name", [EPISODES, TABLE])
def test_a_table_that_is_none_is_named(demos: Path, name: str) -> None:
    (demos / name).write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(DatasetError, match=rf"{name}.* (cannot be read|is no parquet table)"):
        everything(demos)


def test_a_table_damaged_inside_is_named(demos: Path) -> None:
    raw = bytearray((demos / TABLE).read_bytes())
    raw[100:400] = bytes(300)
    (demos / TABLE).write_bytes(raw)
    with pytest.raises(DatasetError, match=r"file-001|episode 1"):
        everything(demos)


def test_rows_that_are_missing_are_counted(demos: Path) -> None:
    pq.write_table(pq.read_table(demos / TABLE).slice(0, 2), demos / TABLE)
    with pytest.raises(
        DatasetError, match=r"file-001\.parquet holds 2 rows with index from 5 to 8, not 4, and no other"
    ):
        everything(demos)


def test_rows_of_another_episode_are_noticed(demos: Path) -> None:
    change_column(demos, "episode_index", pa.array([1, 1, 0, 1]))
    with pytest.raises(DatasetError, match="a row has episode_index 0 where episode 1, frame 2 is due"):
        everything(demos)


def test_vectors_of_other_lengths_are_refused(demos: Path) -> None:
    change_column(
        demos, "action", pa.array([[1.0] * 2, [1.0] * 4, [1.0] * 3, [1.0] * 3], pa.list_(pa.float32()))
    )
    with pytest.raises(DatasetError, match="'action' does not have 3 values in every frame"):
        everything(demos)


def test_images_that_are_paths_out_of_the_dataset_are_not_opened(demos: Path) -> None:
    cells = [{"bytes": None, "path": "/etc/hostname"}] * 4
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    change_column(demos, "observation.images.top", pa.array(cells, kind))
    with pytest.raises(DatasetError, match="/etc/hostname leads out of the dataset"):
        everything(demos)


def test_formats_that_start_programs_are_not_images(demos: Path) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    change_column(demos, "observation.images.top", pa.array([{"bytes": script, "path": None}] * 4, kind))
    with pytest.raises(DatasetError, match="frame 0 is no image in PNG, JPEG, WEBP"):
        everything(demos)


def test_row_groups_of_absurd_size_are_refused(demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROW_GROUP_BYTES", 100)
    with pytest.raises(DatasetError, match="claims a row group of 0 MiB"):
        everything(demos)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"episodes\.jsonl, line 2: is not JSON"),
        ('{"episode_index": 1, "tasks": []}', "line 2: key 'length' is missing"),
        ('{"episode_index": 1, "tasks": [], "length": -1}', "line 2: 'length' = -1 is not valid"),
        ('{"episode_index": 0, "tasks": [], "length": 4}', "two episodes of the same number"),
        ('{"episode_index": 1, "tasks": [], "length": 9}', "holds 4 rows, its episode has 9 frames"),
    ],
)
def test_lines_of_v21_that_are_wrong_are_named(demos_v21: Path, line: str, message: str) -> None:
    path = demos_v21 / "meta/episodes.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n" + line + "\n")
    with pytest.raises(DatasetError, match=message):
        everything(demos_v21)


def test_a_v21_dataset_without_episodes_says_so(demos_v21: Path) -> None:
    (demos_v21 / "meta/episodes.jsonl").write_text("")
    with pytest.raises(DatasetError, match="has no episodes; nothing to embed"):
        everything(demos_v21)
