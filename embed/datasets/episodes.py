"""Choose episodes, number frames through them, and find frames again."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vla.base.errors import DatasetError
from vla.cache.episodes import Episode

MAX_FRAMES = 2**31 - 1
"""Frame numbers are int32 in the cache; whoever claims more is not telling of demonstrations."""


@dataclass(frozen=True)
class Span:
    """Consecutive frames of one episode."""

    position: int
    """Of the episode among the chosen ones."""
    start: int
    """First frame, counted within the episode."""
    stop: int
    """One past the last."""


def choose_episodes(dataset: str, present: Iterable[int], chosen: Sequence[int]) -> list[int]:
    """Return the episode numbers to read, in the dataset's order.

    Args:
        dataset: its name, for messages.
        present: numbers of all episodes, in the dataset's order.
        chosen: those that the user named; none takes all.

    Raises:
        DatasetError: the dataset has no such episode, has one twice, or has none at all.
    """
    numbers = list(present)
    known, wanted = set(numbers), set(chosen)
    if not numbers:
        raise DatasetError(f"{dataset} has no episodes; nothing to embed")
    if len(known) != len(numbers):
        raise DatasetError(f"{dataset} has two episodes of the same number; its metadata are damaged")
    if missing := sorted(wanted - known):
        raise DatasetError(
            f"{dataset} has no episode {missing[0]}; its {len(numbers)} episodes are numbered "
            f"{min(numbers)} to {max(numbers)}"
        )
    return [number for number in numbers if number in wanted] if wanted else numbers


def number_through(
    dataset: str, episodes: Iterable[tuple[int, int, str, tuple[tuple[int, str], ...]]]
) -> tuple[Episode, ...]:
    """Number frames through episodes given as (index, length, task, changes of the task).

    Raises:
        DatasetError: more frames are claimed than a dataset can have.
    """
    numbered, first = [], 0
    for index, length, task, changes in episodes:
        numbered.append(Episode(index=index, length=length, first_frame=first, task=task, changes=changes))
        first += length
        if first > MAX_FRAMES or index > MAX_FRAMES:
            raise DatasetError(f"{dataset} claims more than {MAX_FRAMES} frames; its metadata are damaged")
    return tuple(numbered)


def locate(episodes: Sequence[Episode], frames: range) -> Iterator[Span]:
    """Find which frames of which episodes have these numbers, in order."""
    position = max(0, bisect_right(episodes, frames.start, key=lambda episode: episode.first_frame) - 1)
    while position < len(episodes) and episodes[position].first_frame < frames.stop:
        episode = episodes[position]
        start = max(0, frames.start - episode.first_frame)
        stop = min(frames.stop - episode.first_frame, episode.length)
        if start < stop:
            yield Span(position, start, stop)
        position += 1
