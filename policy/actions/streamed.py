"""Exact statistics of rows that come in blocks and need not fit into memory, quantiles among them.

Quantiles are found by counting: every float32 has a place in a line of 2^32. A first pass counts the upper
half of its digits, a second one the lower half of those that share the upper half with a quantile. That is a
table of 65,536 counts a channel, however many rows there are.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vla.cache import Statistics, Stream
from vla.cache.statistics import moments_of

Blocks = Callable[[], Iterable[Tensor]]
"""Begins a pass over all rows: float32 [n, dim] each."""
HALF = 1 << 16
QUANTILES = (0.01, 0.99)


def streamed_statistics(dim: int, blocks: Blocks, quantiles: bool) -> Statistics:
    """Summarise rows.

    Args:
        dim: of a row.
        blocks: gives all rows anew each time.
        quantiles: two passes more.
    """
    row = Stream(name="rows", kind="vector", dtype="float32", shape=(dim,))
    found = moments_of(row, (block.numpy() for block in blocks())).statistics()
    if not quantiles:
        return found
    q01, q99 = _quantiles(dim, found.count, blocks)
    return found.model_copy(update={"q01": q01, "q99": q99})


def _quantiles(dim: int, count: int, blocks: Blocks) -> list[tuple[float, ...]]:
    """Return quantiles of each channel, between two neighbours in proportion, as `np.quantile` does."""
    places = [share * (count - 1) for share in QUANTILES]
    wanted = [[_Place(rank) for place in places for rank in _around(place, count)] for _ in range(dim)]
    upper = np.zeros((dim, HALF), np.int64)
    for block in blocks():
        for channel, digits in enumerate(_digits(block)):
            upper[channel] += np.bincount(digits >> 16, minlength=HALF)
    for counts, sought in zip(upper, wanted, strict=True):
        for place in sought:
            place.narrow(counts)
    for block in blocks():
        for digits, sought in zip(_digits(block), wanted, strict=True):
            for place in sought:
                lower = digits[digits >> 16 == place.found] & (HALF - 1)
                place.counts += np.bincount(lower, minlength=HALF)
    values = np.array([[place.value() for place in sought] for sought in wanted]).reshape(dim, -1, 2)
    return [
        tuple(np.quantile(values[:, k], place - math.floor(place), axis=1).tolist())
        for k, place in enumerate(places)
    ]


@dataclass
class _Place:
    """The value of one rank, whose digits become known half by half."""

    rank: int
    found: int = 0

    def narrow(self, counts: np.ndarray) -> None:
        """Take the upper half of the digits, and count ranks from its first value on."""
        self.found = self._bin(counts)
        self.rank -= int(counts[: self.found].sum())
        self.counts = np.zeros(HALF, np.int64)

    def value(self) -> float:
        """Return the number, once all of the lower half are counted."""
        place = np.uint32(self.found << 16 | self._bin(self.counts))
        bits = place ^ np.uint32(0x80000000) if place >> 31 else ~place
        return float(np.array(bits, np.uint32).view(np.float32))

    def _bin(self, counts: np.ndarray) -> int:
        return int(np.searchsorted(counts.cumsum(), self.rank, side="right"))


def _around(place: float, count: int) -> tuple[int, int]:
    below = math.floor(place)
    return below, min(below + 1, count - 1)


def _digits(block: Tensor) -> np.ndarray:
    """Return whole numbers [dim, n] in the order of the floats."""
    bits = np.ascontiguousarray(block.numpy().astype(np.float32).T).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000)).astype(np.int64)
