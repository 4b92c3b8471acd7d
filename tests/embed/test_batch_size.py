"""How many images a pass takes: the smallest number that is about as quick as any."""

import pytest
import torch
from transformers import SiglipVisionConfig

from vla.embed.batch_size import CANDIDATES, best_batch_size
from vla.embed.encoder import images_a_pass
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


def test_on_a_cpu_small_towers_take_more_images_a_pass_than_large_ones() -> None:
    base = SiglipVisionConfig(image_size=256, patch_size=16, intermediate_size=3072)
    small = SiglipVisionConfig(image_size=256, patch_size=32, intermediate_size=512)
    assert [images_a_pass(tower, torch.device("cpu")) for tower in (base, small)] == [8, 16]
    assert images_a_pass(small, torch.device("cuda")) == 512


def test_a_block_fills_a_pass_without_overflowing_it() -> None:
    assert block_frames(batch_size=512, cameras=3) == 170
    assert block_frames(batch_size=16, cameras=3) == 16
