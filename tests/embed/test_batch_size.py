"""How many images a pass takes: the smallest number that is about as quick as any."""

import pytest
import torch

from vla.embed.batch_size import CANDIDATES, best_batch_size
from vla.embed.pipeline import block_frames


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((100, 190, 300, 305, 306), 256),  # two more per cent are not worth twice the memory
        ((100, 190, 300, 400, 500), 1024),
        ((100, 90, 80, 70, 60), 64),
        ((100, 190, 300), 256),  # the fourth does not fit
        ((), 64),
    ],
)
def test_the_smallest_batch_near_the_best_rate_is_taken(rates: tuple[int, ...], expected: int) -> None:
    def rate(size: int) -> float:
        if CANDIDATES.index(size) >= len(rates):
            raise torch.OutOfMemoryError
        return rates[CANDIDATES.index(size)]

    assert best_batch_size(rate) == expected


def test_a_block_fills_a_pass_without_overflowing_it() -> None:
    assert block_frames(batch_size=512, cameras=3) == 170
    assert block_frames(batch_size=16, cameras=3) == 16
