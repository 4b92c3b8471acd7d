"""Episodes, and the numbering of frames through them: frame 0, 1, 2, … of the first, then of the second."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Int32
from pydantic import Field

from vla.base.strict import StrictModel

Count = Annotated[int, Field(ge=0)]


class Episode(StrictModel):
    """One demonstration: a run of consecutive frames."""

    index: Count
    """The dataset's own number of it."""
    length: Annotated[int, Field(ge=1)]
    first_frame: Count
    task: str


def positions(
    episodes: Sequence[Episode], frames: range
) -> tuple[Int32[np.ndarray, "frames"], Int32[np.ndarray, "frames"]]:
    """Return each frame's episode, by the dataset's own number, and its number within the episode."""
    firsts = np.array([episode.first_frame for episode in episodes])
    indices = np.array([episode.index for episode in episodes], np.int32)
    numbers = np.arange(frames.start, frames.stop)
    position = np.searchsorted(firsts, numbers, side="right") - 1
    return indices[position], (numbers - firsts[position]).astype(np.int32)
