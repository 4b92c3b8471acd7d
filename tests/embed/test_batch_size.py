"""How many images a pass takes: the smallest number that is about as quick as any."""

import pytest
import torch
from fakes import fake_identity
from transformers import SiglipVisionConfig

from vla.embed import SiglipConfig
from vla.embed.batch_size import CANDIDATES, best_batch_size, block_frames, for_large_batches
from vla.embed.encoders.siglip import SiglipEncoder


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
    def encoder(patch_size: int, intermediate_size: int) -> SiglipEncoder:
        tower = torch.nn.Module()
        tower.config = SiglipVisionConfig(
            image_size=256, patch_size=patch_size, intermediate_size=intermediate_size
        )
        return SiglipEncoder(tower, fake_identity(), ("top",))

    base, small = encoder(16, 3072), encoder(32, 512)
    assert [tower.images_a_pass(torch.device("cpu")) for tower in (base, small)] == [8, 16]
    assert small.images_a_pass(torch.device("cuda")) == 512


def test_a_block_fills_a_pass_without_overflowing_it() -> None:
    assert block_frames(batch_size=512, cameras=3) == 170
    assert block_frames(batch_size=16, cameras=3) == 16


@pytest.mark.parametrize(("asked", "taken"), [("off", "off"), ("on", "on"), ("graphs", "on")])
def test_large_batches_are_compiled_without_graphs(asked: str, taken: str) -> None:
    assert for_large_batches(SiglipConfig.model_validate({"compile": asked})).compile == taken
