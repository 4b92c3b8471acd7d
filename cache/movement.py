"""Which dimensions of a stream moved in the demonstrations, and on what scale each of them is measured.

Nothing here depends on units: a dimension is compared with its own size and with the other dimensions. See
docs/decisions/0015-what-did-not-move-stays-where-it-was.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from vla.cache.metadata import Statistics

RESOLUTION = 2.0**-23
"""Spread, as a share of a dimension's own mean, below which it never moved: float32 has no more digits."""
SMALLEST_SHARE = 1e-3
"""Of the spread of the other dimensions: what moved less is measured on that scale, not on its own."""


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How the dimensions of a stream moved."""

    constant: tuple[bool, ...]
    """Those that never did."""
    slight: tuple[bool, ...]
    """Those that moved so little beside the others that it is noise."""
    scale: tuple[float, ...]
    """What each is divided by when it is standardised, in its units."""


def movement(mean: Sequence[float], std: Sequence[float]) -> Movement:
    """Tell which dimensions moved.

    The spread of the others is the upper quartile of the standard deviations of all that moved: not the
    largest, which one dimension in small units would set, nor the median, which is noise where most of a
    robot rests.

    Args:
        mean: of each dimension.
        std: of each dimension.
    """
    constant = tuple(s <= RESOLUTION * abs(m) for m, s in zip(mean, std, strict=True))
    moving = sorted(s for s, still in zip(std, constant, strict=True) if not still)
    spread = moving[math.ceil(0.75 * len(moving)) - 1] if moving else 1.0
    floor = SMALLEST_SHARE * spread
    return Movement(
        constant=constant,
        slight=tuple(s < floor and not still for s, still in zip(std, constant, strict=True)),
        scale=tuple(spread if still else max(s, floor) for s, still in zip(std, constant, strict=True)),
    )


def describe_resting(statistics: Mapping[str, Statistics], names: Sequence[str]) -> Iterator[str]:
    """Say which dimensions of some streams rested, a line for each stream of which some did.

    Args:
        statistics: of streams, by name.
        names: the streams that are of interest, such as state and action.
    """
    for name in names:
        if (found := statistics.get(name)) is None:
            continue
        moved = movement(found.mean, found.std)
        parts = [
            f"{_numbers(flags)} {what}"
            for flags, what in ((moved.constant, "never moved"), (moved.slight, "hardly moved"))
            if any(flags)
        ]
        if parts:
            yield f"{name} (of {len(found.mean)} dimensions, from 0): {', '.join(parts)}"


def _numbers(flags: Sequence[bool]) -> str:
    """Spell the positions that are set: 0 to 6, 9."""
    runs = []
    position = 0
    for is_set, group in groupby(flags):
        length = len(list(group))
        if is_set:
            last = position + length - 1
            runs.append(str(position) if length == 1 else f"{position} to {last}")
        position += length
    return ", ".join(runs)
