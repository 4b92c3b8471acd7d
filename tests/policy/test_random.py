"""Random numbers: functions of seed, purpose and step; the same for any number of processes and robots."""

import pytest
import torch

from vla.base.errors import ConfigError
from vla.policy.random import GivenNoise, RowRandom, SeededRows, generator_for

CPU = torch.device("cpu")


def test_random_streams_are_functions_of_seed_purpose_and_step() -> None:
    def draw(seed: int, purpose: str, step: int) -> float:
        return float(torch.rand(1, generator=generator_for(seed, purpose, step, CPU)))

    assert draw(0, "loss", 7) == draw(0, "loss", 7)
    assert len({draw(0, "loss", 7), draw(1, "loss", 7), draw(0, "order", 7), draw(0, "loss", 8)}) == 4


def test_rows_shared_by_processes_see_the_numbers_of_one_process() -> None:
    def draw(rank: int, world: int) -> torch.Tensor:
        random = RowRandom(torch.Generator().manual_seed(3), rank, world)
        return torch.cat([random.normal(8 // world, 2), random.integers(100, 8 // world, 1).float()], dim=1)

    assert torch.equal(torch.stack([draw(0, 2), draw(1, 2)], dim=1).flatten(0, 1), draw(0, 1))


@pytest.mark.parametrize("world", [2, 3])
def test_rows_shared_by_processes_know_their_places_in_the_batch(world: int) -> None:
    parts = [RowRandom(None, rank, world).places(6 // world) for rank in range(world)]
    assert torch.equal(torch.stack([index for index, _ in parts], dim=1).flatten(), torch.arange(6))
    assert {whole for _, whole in parts} == {6}


def test_a_robot_sees_the_numbers_of_its_seed_whoever_else_is_in_the_batch() -> None:
    alone, among = SeededRows([7], CPU), SeededRows([3, 7], CPU)
    for _ in range(2):
        assert torch.equal(alone.normal(1, 4, 2)[0], among.normal(2, 4, 2)[1])
        assert torch.equal(alone.uniform(1)[0], among.uniform(2)[1])
        assert torch.equal(alone.integers(10, 1, 3)[0], among.integers(10, 2, 3)[1])


def test_a_robots_noise_is_that_of_a_generator_with_its_seed() -> None:
    expected = torch.randn(4, 2, generator=torch.Generator().manual_seed(7))
    assert torch.equal(SeededRows([7], CPU).normal(1, 4, 2)[0], expected)


def test_given_noise_is_given_back_and_nothing_else_can_be_drawn() -> None:
    noise = torch.randn(2, 4, 3)
    assert GivenNoise(noise).normal(2, 4, 3) is noise
    with pytest.raises(ConfigError, match="uniform numbers"):
        GivenNoise(noise).uniform(2)
