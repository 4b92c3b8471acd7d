"""Read rows of LeRobot's parquet tables, one row a frame.

Tables are read by pyarrow, and only the columns that are needed: what else a table holds, of whatever type,
does not matter. Row groups that cannot hold the wanted rows are skipped by their statistics, so reading from
the middle costs little.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64

from vla.base.errors import DatasetError, nearest
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.video import VideoSpan

MAX_ROW_GROUP_BYTES = 4 << 30
"""LeRobot starts a new file at 100 MB. A row group that claims more than this wants memory."""
# What pyarrow raises at tables that are damaged, or change under it.
TABLE_ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, KeyError)


@dataclass(frozen=True)
class Rows:
    """The rows of a file whose `column` is start, start + 1, … stop - 1."""

    file: str
    """Relative name."""
    column: str | None
    """None counts the rows of the file themselves."""
    start: int
    stop: int

    def joined(self, other: "Rows") -> "Rows | None":
        """Return these rows and those of `other` as one, if the latter go on where these end."""
        if (self.file, self.column, self.stop) != (other.file, other.column, other.start):
            return None
        return Rows(self.file, self.column, self.start, other.stop)


@dataclass(frozen=True)
class EpisodeFiles:
    """One episode and its places."""

    index: int
    length: int
    tasks: tuple[str, ...]
    """What the list of episodes says; which of them a frame has is in the rows."""
    rows: Rows
    videos: Mapping[str, VideoSpan]
    """By feature key."""


@dataclass(frozen=True)
class RowBlock:
    """Consecutive rows, from one file or several; these may write a column in different Arrow types."""

    tables: tuple[pa.Table, ...]

    def __len__(self) -> int:
        return sum(map(len, self.tables))

    def has(self, column: str) -> bool:
        """Tell whether all of the rows have a column."""
        return all(column in table.column_names for table in self.tables)

    def cells(self, column: str) -> list[object]:
        """Return the values of a column as they are."""
        return [cell for table in self.tables for cell in table[column].to_pylist()]

    def values(self, column: str) -> Float64[np.ndarray, "n"]:
        """Return a column of single numbers."""
        return self.numbers(column, (1,), "", np.float64)[:, 0]

    def numbers(
        self, key: str, shape: tuple[int, ...], dataset: str, dtype: type[np.floating] = np.float32
    ) -> Float32[np.ndarray, "n ..."] | Float64[np.ndarray, "n ..."]:
        """Return a feature of numbers, nested as its shape says or written one after the other.

        Args:
            key: of the feature.
            shape: of a frame of it.
            dataset: its name, for messages.
            dtype: of the result.

        Raises:
            DatasetError: a row does not have the values of that shape.
        """
        return np.concatenate([_numbers(table[key], key, shape, dataset, dtype) for table in self.tables])


def read_rows(
    folder: DatasetFolder,
    pieces: Iterable[Rows],
    columns: Sequence[str],
    size: int,
    optional: Sequence[str] = (),
) -> Iterator[RowBlock]:
    """Yield blocks of exactly `size` rows, in order, across files; the last may be shorter.

    Args:
        folder: the dataset.
        pieces: which rows.
        columns: that every file must have.
        size: rows of a block.
        optional: columns that are read where there are any.

    Raises:
        DatasetError: a file is missing or damaged, lacks a column, or the rows are not all there.
    """
    kept: list[pa.Table] = []
    count = 0
    for rows in pieces:
        found = 0
        for piece in scan(folder, rows, columns, size, optional):
            found += len(piece)
            while count + len(piece) >= size:
                yield RowBlock((*kept, piece.slice(0, size - count)))
                kept, count, piece = [], 0, piece.slice(size - count)
            if len(piece):
                kept.append(piece)
                count += len(piece)
        check_count(folder, rows, found)
    if count:
        yield RowBlock(tuple(kept))


def scan(
    folder: DatasetFolder, rows: Rows, columns: Sequence[str], size: int, optional: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Yield the rows of a file, at most `size` at a time; fewer in all where it does not have them.

    Raises:
        DatasetError: the file is missing or damaged, or lacks a column.
    """
    path = folder.file(rows.file)
    needed = list(dict.fromkeys([*columns, *([rows.column] if rows.column else [])]))
    names = check_table(folder, rows.file, needed)
    read = [*needed, *(name for name in optional if name in names and name not in needed)]
    try:
        with pq.ParquetFile(path) as file:
            first, missing = 0, rows.stop - rows.start
            for group in range(file.metadata.num_row_groups):
                there = file.metadata.row_group(group)
                here, first = range(first, first + there.num_rows), first + there.num_rows
                low, high = (here.start, here.stop - 1) if rows.column is None else _range(there, rows.column)
                if high < rows.start or low >= rows.stop:
                    continue
                place = here.start
                for batch in file.iter_batches(size, row_groups=[group], columns=read):
                    piece = pa.Table.from_batches([batch])
                    number = np.arange(place, place + len(piece))
                    if rows.column is not None:
                        number = np.asarray(piece[rows.column].combine_chunks(), np.int64)
                    place += len(piece)
                    inside = np.flatnonzero((number >= rows.start) & (number < rows.stop))
                    if not len(inside):
                        continue
                    together = inside[-1] - inside[0] + 1 == len(inside)
                    yield piece.slice(inside[0], len(inside)) if together else piece.take(pa.array(inside))
                    missing -= len(inside)
                    if missing <= 0:
                        return
    except TABLE_ERRORS as error:
        raise DatasetError(f"{path} cannot be read ({first_line(error)})") from error


def check_count(folder: DatasetFolder, rows: Rows, found: int) -> None:
    """Check that rows were all there.

    Raises:
        DatasetError: they were not.
    """
    due, path = rows.stop - rows.start, folder.root / rows.file
    if found == due:
        return
    if rows.column is None:
        raise DatasetError(
            f"{path} holds {found} rows, its episode has {due} frames; the dataset is incomplete"
        )
    raise DatasetError(
        f"{path} holds {found} rows with {rows.column} from {rows.start} to {rows.stop - 1}, not {due}, and "
        "no other table has them; the dataset is incomplete"
    )


def check_table(folder: DatasetFolder, name: str, columns: Sequence[str]) -> list[str]:
    """Check a table's header before anything is read by it; return the names of all columns.

    Raises:
        DatasetError: it is no table, lacks a column, or claims an absurd size.
    """
    path = folder.file(name)
    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            groups = [file.metadata.row_group(k).total_byte_size for k in range(file.metadata.num_row_groups)]
    except TABLE_ERRORS as error:
        raise DatasetError(
            f"{path} is no parquet table that can be read ({first_line(error)}); a recording that was killed "
            "leaves its last table so; leave that episode out: --set dataset.episodes=[…]"
        ) from error
    for column in columns:
        if column not in names:
            raise DatasetError(f"{path} has no column '{column}'; {nearest(column, names)}")
    if max(groups, default=0) > MAX_ROW_GROUP_BYTES:
        raise DatasetError(
            f"{path} claims a row group of {max(groups) >> 20} MiB; "
            f"vla reads up to {MAX_ROW_GROUP_BYTES >> 20}"
        )
    return names


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def value_range(folder: DatasetFolder, name: str, column: str) -> range:
    """Return the range of whole numbers that a table's column holds, from its header where that says it.

    Raises:
        DatasetError: it is no table, or has no such column.
    """
    check_table(folder, name, [column])
    try:
        with pq.ParquetFile(folder.file(name)) as file:
            groups = [_range(file.metadata.row_group(k), column) for k in range(file.num_row_groups)]
            if any(math.isinf(low) for low, _ in groups):
                values = np.asarray(file.read(columns=[column])[column].combine_chunks(), np.int64)
                groups = [(values.min(), values.max())] if len(values) else []
    except TABLE_ERRORS as error:
        raise DatasetError(f"{folder.root / name} cannot be read ({first_line(error)})") from error
    return (
        range(int(min(low for low, _ in groups)), int(max(high for _, high in groups)) + 1)
        if groups
        else range(0)
    )


def _range(group: pq.RowGroupMetaData, column: str) -> tuple[float, float]:
    """Return the smallest and largest value of a column in a row group; infinite where it does not say."""
    for k in range(group.num_columns):
        chunk = group.column(k)
        if chunk.path_in_schema == column:
            told = chunk.statistics
            if told is not None and told.has_min_max:
                return float(told.min), float(told.max)
    return -math.inf, math.inf


def _numbers(
    chunked: pa.ChunkedArray, key: str, shape: tuple[int, ...], dataset: str, dtype: type[np.floating]
) -> np.ndarray:
    column, length = chunked.combine_chunks(), len(chunked)
    nested: list[int] = []
    whole = True
    while whole and (column := _storage(column)) is not None and _is_list(column.type):
        lengths = pc.min_max(pc.list_value_length(column)).as_py()
        whole = not column.null_count and lengths["min"] is not None and lengths["min"] == lengths["max"]
        nested.append(lengths["min"])
        column = column.flatten()
    total = math.prod(shape)
    if not whole or tuple(nested) not in (shape, (total,), () if total == 1 else shape):
        due = f"{total} values" if len(shape) == 1 else f"shape {list(shape)}"
        raise DatasetError(f"{dataset}: '{key}' does not have {due} in every frame, as info.json says")
    return np.asarray(column, dtype=dtype).reshape(length, *shape)


def _storage(column: pa.Array) -> pa.Array:
    """Return what lies under a type of the `datasets` library, such as its `Array2D`."""
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
