"""Check that rows of LeRobot's tables are the frames that they should be, at the times they should have.

What a dataset does not write is not missed: GR00T's have no `frame_index`, rows are then counted.
"""

import numpy as np
from jaxtyping import Int32

from vla.base.errors import DatasetError
from vla.embed.datasets.lerobot.tables import RowBlock


def check_positions(
    rows: RowBlock,
    episode_index: Int32[np.ndarray, "n"],
    frame_index: Int32[np.ndarray, "n"],
    dataset: str,
) -> None:
    """Check that rows are the frames they should be, where they say so.

    Raises:
        DatasetError: a row is another frame; the message names both.
    """
    for column, expected in (("episode_index", episode_index), ("frame_index", frame_index)):
        if not rows.has(column):
            continue
        found = rows.values(column)
        if not np.array_equal(found, expected):
            row = int(np.argmax(found != expected))
            raise DatasetError(
                f"{dataset}: a row has {column} {found[row]:g} where episode {episode_index[row]}, frame "
                f"{frame_index[row]} is due; metadata and data do not belong together"
            )


def check_times(
    rows: RowBlock,
    episode_index: Int32[np.ndarray, "n"],
    frame_index: Int32[np.ndarray, "n"],
    fps: float,
    tolerance_s: float,
    dataset: str,
) -> None:
    """Check that frame k of an episode is stamped k / fps, where it is stamped.

    Raises:
        DatasetError: it is stamped otherwise, by more than the tolerance.
    """
    if not rows.has("timestamp"):
        return
    found, due = rows.values("timestamp"), frame_index / fps
    # Timestamps are float32: an hour into an episode they are a quarter of a millisecond apart.
    allowed = tolerance_s + np.spacing(due.astype(np.float32))
    wrong = ~(np.abs(found - due) <= allowed)
    if wrong.any():
        row = int(wrong.argmax())
        raise DatasetError(
            f"{dataset}: episode {episode_index[row]}, frame {frame_index[row]} has timestamp "
            f"{found[row]:.5f} s; at {fps:g} frames a second it is due at {due[row]:.5f} s; if the clock was "
            "only uneven, raise --set dataset.timestamp_tolerance_s=…; if row k belongs to frame k of the "
            "video whatever the clock says: --set dataset.align=index"
        )
