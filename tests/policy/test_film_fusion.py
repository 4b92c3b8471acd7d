"""The fusion that the task text modulates: what it computes, that it chooses, and that it needs a text."""

from itertools import product

import pytest
import torch
from torch import nn

from vla.base.errors import ConfigError
from vla.policy.fusion.concat import ConcatFusion
from vla.policy.fusion.film import FilmConfig, FilmFusion
from vla.policy.fusion.fusion import Fusion, FusionSizes

SIZES = FusionSizes(tokens={"top": (2, 3), "imu": (1, 2)}, state_dim=2, task_dim=4, cond_dim=8)


def test_the_condition_is_scaled_and_shifted_features_the_state_and_the_text() -> None:
    torch.manual_seed(0)
    fusion = FilmFusion(SIZES, width=5)
    tokens = {"imu": torch.randn(2, 3, 1, 2), "top": torch.randn(2, 3, 2, 3)}
    state, task = torch.randn(2, 3, 2), torch.randn(2, 3, 4)
    found = fusion(tokens, state, task)
    assert found.shape == (2, 3, 8)
    for row, instant in product(range(2), range(3)):
        seen = fusion.features(torch.cat([tokens[name][row, instant].flatten() for name in ("top", "imu")]))
        scale, shift = fusion.modulation(task[row, instant]).split(5)
        parts = [seen * (1 + scale) + shift, state[row, instant], task[row, instant]]
        torch.testing.assert_close(found[row, instant], fusion.cond_projector(torch.cat(parts)))


def test_it_learns_to_point_where_the_text_says_and_concatenation_does_not() -> None:
    """Four places, one of which is named: the answer is a product of what is seen and what is asked."""

    def error(fusion: Fusion) -> float:
        random = torch.Generator().manual_seed(1)
        optimizer = torch.optim.Adam(fusion.parameters(), lr=2e-2)
        for _ in range(200):
            places = torch.randn(64, 1, 4, 2, generator=random)
            named = torch.randint(4, (64,), generator=random)
            told = nn.functional.one_hot(named, 4).float()[:, None]
            loss = (fusion({"top": places}, None, told)[:, 0] - places[range(64), 0, named]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    torch.manual_seed(0)
    sizes = FusionSizes(tokens={"top": (4, 2)}, state_dim=0, task_dim=4, cond_dim=2)
    assert error(FilmFusion(sizes, width=16)) < 0.02
    assert error(ConcatFusion(sizes)) > 0.5


def test_without_a_task_text_it_is_refused() -> None:
    sizes = FusionSizes(tokens={"top": (1, 2)}, state_dim=2, task_dim=0, cond_dim=4)
    with pytest.raises(ConfigError, match=r"film is modulated by the task text.*policy\.language=true"):
        FilmConfig().build(sizes)
