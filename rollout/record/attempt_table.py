"""The table of one attempt: what a worker sends and the staging folder keeps.

One row a step, with those columns of the data set that do not depend on other attempts:

    observation.images.<camera>  struct{bytes, path}  PNG, lossless
    observation.state            float32 [S]  what the robot measured when the step began
    action                       float32 [S]  the expert's undisturbed command at that moment
    next.reward                  float32       what the step earned
    next.success                 bool          whether the task counted as solved after the step
    timestamp, frame_index       float32 [s], int64

The metadata of the schema holds, under `vla`, an `Outcome` as JSON. A table may have no rows: a
failed attempt that is not to be kept leaves only its outcome.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vla.base.strict import StrictModel

METADATA_KEY = b"vla"
IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


class Outcome(StrictModel):
    """How an attempt went."""

    seed: int
    success: bool
    """The task was solved, and the left hand still held the box at the end."""
    max_stage: int
    histograms: dict[str, tuple[tuple[int, ...], ...]]
    """Per image column, how many pixels of each channel have each of the 256 values."""


def encode_attempt(rows: Mapping[str, Sequence[Any]], outcome: Outcome) -> bytes:
    """Return the parquet file of an attempt.

    Args:
        rows: one sequence a column; all empty, or of equal length.
        outcome: how the attempt went.
    """
    states = rows.get("observation.state", ())
    vector = pa.list_(pa.float32(), len(states[0]) if len(states) else 0)
    types = {
        **dict.fromkeys(outcome.histograms, IMAGE_TYPE),
        "observation.state": vector,
        "action": vector,
        "next.reward": pa.float32(),
        "next.success": pa.bool_(),
        "timestamp": pa.float32(),
        "frame_index": pa.int64(),
    }
    schema = pa.schema(types, metadata={METADATA_KEY: outcome.model_dump_json()})
    table = pa.table({column: rows.get(column, ()) for column in types}, schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none", use_dictionary=False, write_statistics=False)
    return buffer.getvalue()


def read_outcome(schema: pa.Schema) -> Outcome:
    """Return the outcome that a table of an attempt carries."""
    return Outcome.model_validate_json(schema.metadata[METADATA_KEY])
