"""What `make fuzz` has found, each as a test."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_datasets import write_dataset

from vla.embed.config import DatasetConfig
from vla.embed.sources import open_source
from vla.errors import CacheError, DatasetError


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
