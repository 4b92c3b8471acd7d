"""Stream rows of LeRobot's parquet tables, one row a frame.

Tables go through the `datasets` library: nothing is converted or copied to a cache folder. Row groups
that cannot hold the wanted rows are skipped by their statistics, so reading from the middle costs little.
"""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from vla.base.errors import DatasetError, nearest
from vla.embed.datasets.folder import DatasetFolder

POSITION_COLUMNS = ("episode_index", "frame_index", "timestamp")
MAX_ROW_GROUP_BYTES = 4 << 30
"""LeRobot starts a new file at 100 MB. A row group that claims more than this wants memory."""
# What pyarrow and `datasets` raise at tables that are damaged, or change under them.
TABLE_ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, KeyError)


@dataclass(frozen=True)
class Rows:
    """The rows of some files whose `column` is start, start + 1, … stop - 1."""

    files: tuple[str, ...]
    """Relative names, in the order of the rows."""
    column: str
    start: int
    stop: int

    def joined(self, other: "Rows") -> "Rows | None":
        """Return these rows and those of `other` as one, if the latter go on where these end."""
        if (self.column, self.stop) != (other.column, other.start):
            return None
        files = self.files if other.files[0] == self.files[-1] else self.files + other.files
        return Rows(files, self.column, self.start, other.stop)


def stream(folder: DatasetFolder, rows: Rows, columns: Sequence[str], batch: int) -> Iterator[pa.Table]:
    """Yield tables of at most `batch` rows, in order.

    Raises:
        DatasetError: a file is missing or damaged, lacks a column, or the rows are not all there.
    """
    paths = [folder.file(name) for name in rows.files]
    for path in paths:
        _check(path, [*columns, rows.column])
    found = 0
    try:
        table = datasets.load_dataset(
            "parquet",
            data_files=[glob.escape(str(path)) for path in paths],
            split="train",
            streaming=True,
            columns=list(columns),
            filters=[(rows.column, ">=", rows.start), (rows.column, "<", rows.stop)],
            batch_size=batch,
        )
        for piece in table.with_format("arrow").iter(batch_size=batch):
            found += len(piece)
            yield piece
    except TABLE_ERRORS as error:
        raise DatasetError(f"{_named(paths)} cannot be read ({first_line(error)})") from error
    if found != rows.stop - rows.start:
        raise DatasetError(
            f"{_named(paths)} holds {found} rows with {rows.column} from {rows.start} to {rows.stop - 1}, "
            f"not {rows.stop - rows.start}; the dataset is incomplete"
        )


def rebatch(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """Cut a stream of tables into tables of exactly `size` rows; the last may be shorter."""
    kept: list[pa.Table] = []
    count = 0
    for table in tables:
        kept.append(table)
        count += len(table)
        while count >= size:
            whole = pa.concat_tables(kept)
            yield whole.slice(0, size)
            kept, count = [whole.slice(size)], count - size
    if count:
        yield pa.concat_tables(kept)


def vectors(table: pa.Table, key: str, dim: int, dataset: str) -> Float32[np.ndarray, "n dim"]:
    """Return a vector feature of some rows.

    Raises:
        DatasetError: a row does not have `dim` values.
    """
    column = table[key].combine_chunks()
    if _is_list(column.type):
        lengths = pc.list_value_length(column)
        whole = not column.null_count and pc.all(pc.equal(lengths, dim)).as_py()
        column = column.flatten()
    else:
        whole = dim == 1
    if not whole:
        raise DatasetError(f"{dataset}: '{key}' does not have {dim} values in every frame, as info.json says")
    return np.asarray(column, dtype=np.float32).reshape(len(table), dim)


def _check(path: Path, columns: Sequence[str]) -> None:
    """Check a table's header before anything is read by it."""
    try:
        metadata = pq.read_metadata(path)
        names = metadata.schema.to_arrow_schema().names
        groups = [metadata.row_group(k).total_byte_size for k in range(metadata.num_row_groups)]
    except TABLE_ERRORS as error:
        raise DatasetError(f"{path} is no parquet table that can be read ({first_line(error)})") from error
    for column in columns:
        if column not in names:
            raise DatasetError(f"{path} has no column '{column}'; {nearest(column, names)}")
    if max(groups, default=0) > MAX_ROW_GROUP_BYTES:
        raise DatasetError(
            f"{path} claims a row group of {max(groups) >> 20} MiB; "
            f"vla reads up to {MAX_ROW_GROUP_BYTES >> 20}"
        )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _named(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} to {paths[-1].name}"


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
