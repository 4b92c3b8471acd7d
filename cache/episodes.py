"""Episodes, and the numbering of frames through them: frame 0, 1, 2, … of the first, then of the second."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, overload

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
    """What to do, in words."""
    changes: tuple[tuple[Count, str], ...] = ()
    """From which later frames on, counted within the episode, the task has another text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Episodes(Sequence[Episode]):
    """The episodes of a cache, as columns: millions of them cost no objects.

    An item is made when it is asked for.
    """

    number: np.ndarray
    """int32 [episodes], the dataset's own."""
    length: np.ndarray
    """int32 [episodes], frames."""
    task: np.ndarray
    """int32 [episodes], row in `tasks`."""
    tasks: tuple[str, ...]
    """The different texts, in order of appearance."""
    part: np.ndarray
    """int32 [episodes], which part of the cache holds it."""
    first_row: np.ndarray
    """int64 [episodes], its first frame, counted within the part."""
    content: np.ndarray
    """uint8 [episodes, 32], the identity of its content; [episodes, 0] in formats 1 and 2, which had none."""
    changes: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    """int64 [changes, 3], in order: position of an episode, frame within it, row in `tasks` from there on."""

    @classmethod
    def of(
        cls,
        episodes: Sequence[Episode],
        *,
        contents: Sequence[bytes] | None = None,
        part: Sequence[int] | None = None,
        first_row: Sequence[int] | None = None,
    ) -> "Episodes":
        """Make columns of rows.

        Args:
            episodes: in order.
            contents: their identities.
            part: which part holds each; None is one for all.
            first_row: where in it; None is one after the other.
        """
        tasks = tuple(dict.fromkeys(task for episode in episodes for task in texts_of(episode)))
        rows = {task: row for row, task in enumerate(tasks)}
        changes = [(k, frame, rows[task]) for k, e in enumerate(episodes) for frame, task in e.changes]
        content = np.frombuffer(b"".join(contents or ()), np.uint8)
        return cls(
            number=np.array([episode.index for episode in episodes], np.int32),
            length=np.array([episode.length for episode in episodes], np.int32),
            task=np.array([rows[episode.task] for episode in episodes], np.int32),
            tasks=tasks,
            part=np.zeros(len(episodes), np.int32) if part is None else np.array(part, np.int32),
            first_row=np.array(
                [episode.first_frame for episode in episodes] if first_row is None else first_row, np.int64
            ),
            content=content.reshape(len(episodes), -1),
            changes=np.array(changes, np.int64).reshape(-1, 3),
        )

    @cached_property
    def first_frame(self) -> np.ndarray:
        """int64 [episodes], numbered through all of them."""
        return np.cumsum(self.length, dtype=np.int64) - self.length

    @property
    def num_frames(self) -> int:
        return int(self.length.sum(dtype=np.int64))

    def find(self, frames: np.ndarray) -> np.ndarray:
        """Return the position of the episode that each frame lies in."""
        return np.searchsorted(self.first_frame, frames, side="right") - 1

    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return from which frames on, numbered through all episodes, which row of `tasks` counts.

        Returns:
            int64 [runs] and [runs], in order.
        """
        starts, rows = self.first_frame, self.task.astype(np.int64)
        if len(self.changes):
            position, frame, row = self.changes.T
            starts = np.concatenate([starts, self.first_frame[position] + frame])
            order = np.argsort(starts, kind="stable")
            starts, rows = starts[order], np.concatenate([rows, row])[order]
        return starts, rows

    @overload
    def __getitem__(self, position: int) -> Episode: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Episode, ...]: ...
    def __getitem__(self, position: int | slice) -> Episode | tuple[Episode, ...]:
        if isinstance(position, slice):
            return tuple(self[k] for k in range(*position.indices(len(self))))
        return Episode(
            index=int(self.number[position]),
            length=int(self.length[position]),
            first_frame=int(self.first_frame[position]),
            task=self.tasks[self.task[position]],
            changes=self._changes_of(position),
        )

    def _changes_of(self, position: int) -> tuple[tuple[int, str], ...]:
        if not len(self.changes):
            return ()
        mine = self.changes[self.changes[:, 0] == position % len(self)]
        return tuple((int(frame), self.tasks[row]) for _, frame, row in mine)

    def __len__(self) -> int:
        return len(self.number)

    def __iter__(self) -> Iterator[Episode]:
        return (self[position] for position in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Episodes) or self.tasks != other.tasks:
            return False
        columns = ("number", "length", "task", "part", "first_row", "content", "changes")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in columns)

    __hash__ = None  # type: ignore[assignment]  # arrays have none


def texts_of(episode: Episode) -> tuple[str, ...]:
    """Return the texts of an episode's tasks, in order."""
    return (episode.task, *(task for _, task in episode.changes))


def positions(
    episodes: Sequence[Episode], frames: range
) -> tuple[Int32[np.ndarray, "frames"], Int32[np.ndarray, "frames"]]:
    """Return each frame's episode, by the dataset's own number, and its number within the episode."""
    place = partial(bisect_right, episodes, key=lambda episode: episode.first_frame)
    here = episodes[max(0, place(frames.start) - 1) : place(frames.stop - 1)]
    firsts = np.array([episode.first_frame for episode in here])
    indices = np.array([episode.index for episode in here], np.int32)
    numbers = np.arange(frames.start, frames.stop)
    position = np.searchsorted(firsts, numbers, side="right") - 1
    return indices[position], (numbers - firsts[position]).astype(np.int32)
