"""The tables of a cache, in Parquet: columns of numbers and of 32-byte digests, checked when read."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla.base.errors import CacheError

DIGEST_BYTES = 32
TABLE_ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, KeyError)


def table_bytes(columns: Mapping[str, np.ndarray], notes: Mapping[str, str] | None = None) -> bytes:
    """Write a table; the same columns give the same bytes.

    Args:
        columns: by name; uint8 [n, 32] are digests.
        notes: entries of the file's own metadata.
    """
    arrays = {
        name: _digests(values) if values.ndim == 2 else pa.array(values) for name, values in columns.items()
    }
    table = pa.table(arrays).replace_schema_metadata(dict(notes) if notes else None)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def read_table(
    path: Path, columns: Sequence[tuple[str, str]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a table.

    Args:
        path: the file.
        columns: name and numpy type of each; "digest" for 32 bytes.

    Returns:
        Columns by name, digests as uint8 [n, 32]; and the notes.

    Raises:
        CacheError: it cannot be read, lacks a column, or has one of another type; the message says what it
        is.
    """
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            table = file.read(columns=[name for name, _ in columns])
            found = {name: _column(table, name, kind) for name, kind in columns}
            notes = table.schema.metadata or {}
    except TABLE_ERRORS as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CacheError(f"cannot be read ({reason})") from error
    return found, {key.decode(errors="replace"): text.decode(errors="replace") for key, text in notes.items()}


def digest_rows(digests: Sequence[bytes]) -> np.ndarray:
    """Return 32-byte digests as uint8 [n, 32]."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), DIGEST_BYTES)


def _digests(values: np.ndarray) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(values, np.uint8).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), len(values), [None, buffer])


def _column(table: pa.Table, name: str, kind: str) -> np.ndarray:
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no rows
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    due = pa.binary(DIGEST_BYTES) if kind == "digest" else pa.from_numpy_dtype(np.dtype(kind))
    if column.type != due or column.null_count:
        raise ValueError(f"column '{name}' is {column.type}, not {due}")
    if kind != "digest":
        return column.to_numpy()
    whole = np.frombuffer(column.buffers()[1], np.uint8) if len(column) else np.zeros(0, np.uint8)
    first = column.offset * DIGEST_BYTES
    return whole[first : first + len(column) * DIGEST_BYTES].reshape(-1, DIGEST_BYTES)
