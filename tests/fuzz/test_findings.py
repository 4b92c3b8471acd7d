"""What `make fuzz` has found, each as a test."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_datasets import write_dataset
from messages import GREETING, INFO, REPLY, TIMING, converse

from vla.base.errors import CacheError, DatasetError, ServerError
from vla.base.wire import PROTOCOL, pack
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig


def test_a_broken_page_of_an_episode_table_is_one_line(tmp_path: Path) -> None:
    table = (
        write_dataset(tmp_path / "demos", (2, 3), (16, 16), 2) / "meta/episodes/chunk-000/file-000.parquet"
    )
    columns = pq.read_metadata(table).row_group(0)
    column = next(c for c in map(columns.column, range(columns.num_columns)) if c.path_in_schema == "length")
    data = bytearray(table.read_bytes())
    at = column.dictionary_page_offset or column.data_page_offset
    data[at : at + 8] = b"\xff" * 8  # a page's header: pyarrow answers in two lines
    table.write_bytes(data)
    with pytest.raises(DatasetError, match=r"file-000\.parquet cannot be read") as caught:
        _ = open_source(DatasetConfig(path=str(tmp_path / "demos")), workers=1).episodes
    assert "\n" not in str(caught.value)


def test_no_error_has_two_lines() -> None:
    assert str(CacheError("shard a cannot be read (no memory\nnor time)")) == (
        "shard a cannot be read (no memory nor time)"
    )


def test_an_endless_name_leaves_an_error_short(tmp_path: Path) -> None:
    info = write_dataset(tmp_path / "demos", (2,), (16, 16), 2) / "meta/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"data_path": "a" * 5000}))
    with pytest.raises(DatasetError, match=r"'a{80}' is no file name .* \.\.\. a+") as caught:
        open_source(DatasetConfig(path=str(tmp_path / "demos")), workers=1).identity()
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("field", "value"),
    [("obs_horizon", "two"), ("fps", float("nan")), ("fps", 0), ("streams", [1]), ("action_dim", -1)],
)
def test_a_greeting_of_other_types_is_one_line(field: str, value: object) -> None:
    greeting = pack("hello", protocol=PROTOCOL, **{**asdict(INFO), field: value})
    with pytest.raises(ServerError, match=f"greeting is of another vla: '{field}' is "):
        converse(greeting, REPLY)


GOOD = np.zeros((8, 16), np.float32)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"timing": TIMING}, "found none"),
        ({"actions": [[0.0] * 16] * 8, "timing": TIMING}, "found none"),
        ({"actions": GOOD[:0], "timing": TIMING}, r"found float32 \[0, 16\]"),
        ({"actions": GOOD[:, :15], "timing": TIMING}, r"float32 actions \[8, 16\], found float32 \[8, 15\]"),
        ({"actions": np.zeros((8, 16), np.uint8), "timing": TIMING}, "found uint8"),
        ({"actions": GOOD + np.float32("nan"), "timing": TIMING}, "not finite"),
        ({"actions": GOOD}, "no timing"),
        ({"actions": GOOD, "timing": {"wait_s": "long"}}, "no timing"),
    ],
)
def test_actions_that_no_robot_should_get_are_refused_by_the_client(
    fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ServerError, match=complaint):
        converse(GREETING, pack("actions", **fields))
