"""Hold the rows of a table against the places and times that metadata promise."""

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int32

from vla.base.errors import DatasetError


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


def _numbers(table: pa.Table, column: str) -> Float64[np.ndarray, "n"]:
    return np.asarray(table[column].combine_chunks(), dtype=np.float64).reshape(len(table))
