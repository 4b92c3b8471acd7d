"""Stream rows of LeRobot's parquet tables, one row a frame.

Tables go through the `datasets` library: nothing is converted or copied to a cache folder. Row groups
that cannot hold the wanted rows are skipped by their statistics, so reading from the middle costs little.
"""

import glob
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64, Int32

from vla.base.errors import DatasetError, nearest
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.video import VideoSpan

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


@dataclass(frozen=True)
class EpisodeFiles:
    """One episode and its places."""

    index: int
    length: int
    task: str
    rows: Rows
    videos: Mapping[str, VideoSpan]
    """By feature key."""


def read_rows(
    folder: DatasetFolder, pieces: Iterable[Rows], columns: Sequence[str], size: int
) -> Iterator[pa.Table]:
    """Yield tables of exactly `size` rows, in order, across files; the last may be shorter.

    Raises:
        DatasetError: a file is missing or damaged, lacks a column, or the rows are not all there.
    """
    kept: list[pa.Table] = []
    count = 0
    for rows in pieces:
        paths = [folder.file(name) for name in rows.files]
        for path in paths:
            check_table(path, [*columns, rows.column])
        found = 0
        try:
            table = datasets.load_dataset(
                "parquet",
                data_files=[glob.escape(str(path)) for path in paths],
                split="train",
                streaming=True,
                columns=list(columns),
                filters=[(rows.column, ">=", rows.start), (rows.column, "<", rows.stop)],
                batch_size=size,
            )
            for piece in table.with_format("arrow").iter(batch_size=size):
                found += len(piece)
                count += len(piece)
                kept.append(piece)
                while count >= size:
                    whole = pa.concat_tables(kept)
                    yield whole.slice(0, size)
                    kept, count = [whole.slice(size)], count - size
        except TABLE_ERRORS as error:
            raise DatasetError(f"{_named(paths)} cannot be read ({first_line(error)})") from error
        if found != rows.stop - rows.start:
            raise DatasetError(
                f"{_named(paths)} holds {found} rows with {rows.column} from {rows.start} to "
                f"{rows.stop - 1}, not {rows.stop - rows.start}; the dataset is incomplete"
            )
    if count:
        yield pa.concat_tables(kept)


def numbers(table: pa.Table, key: str, shape: tuple[int, ...], dataset: str) -> Float32[np.ndarray, "n ..."]:
    """Return the values of a feature in some rows, nested as its shape says or written one after the other.

    Raises:
        DatasetError: a row does not have the values of that shape.
    """
    column = table[key].combine_chunks()
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
    return np.asarray(column, dtype=np.float32).reshape(len(table), *shape)


def check_positions(
    table: pa.Table,
    episode_index: Int32[np.ndarray, "n"],
    frame_index: Int32[np.ndarray, "n"],
    dataset: str,
) -> None:
    """Check that rows are the frames they should be.

    Raises:
        DatasetError: a row is another frame; the message names both.
    """
    for column, expected in (("episode_index", episode_index), ("frame_index", frame_index)):
        found = _numbers(table, column)
        if not np.array_equal(found, expected):
            row = int(np.argmax(found != expected))
            raise DatasetError(
                f"{dataset}: a row has {column} {found[row]:g} where episode {episode_index[row]}, frame "
                f"{frame_index[row]} is due; metadata and data do not belong together"
            )


def check_times(
    table: pa.Table,
    episode_index: Int32[np.ndarray, "n"],
    frame_index: Int32[np.ndarray, "n"],
    fps: float,
    tolerance_s: float,
    dataset: str,
) -> None:
    """Check that frame k of an episode is stamped k / fps.

    Raises:
        DatasetError: it is stamped otherwise, by more than the tolerance.
    """
    found, due = _numbers(table, "timestamp"), frame_index / fps
    # Timestamps are float32: an hour into an episode they are a quarter of a millisecond apart.
    allowed = tolerance_s + np.spacing(due.astype(np.float32))
    wrong = ~(np.abs(found - due) <= allowed)
    if wrong.any():
        row = int(wrong.argmax())
        raise DatasetError(
            f"{dataset}: episode {episode_index[row]}, frame {frame_index[row]} has timestamp "
            f"{found[row]:.5f} s; at {fps:g} frames a second it is due at {due[row]:.5f} s; if the "
            "recording was uneven and that is meant, raise --set dataset.tolerance_s=…"
        )


def check_table(path: Path, columns: Sequence[str]) -> None:
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


def _storage(column: pa.Array) -> pa.Array:
    """Return what lies under a type of the `datasets` library, such as its `Array2D`."""
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _named(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} to {paths[-1].name}"


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _numbers(table: pa.Table, column: str) -> Float64[np.ndarray, "n"]:
    return np.asarray(table[column].combine_chunks(), dtype=np.float64).reshape(len(table))
