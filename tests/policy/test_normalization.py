"""State and actions to about unit scale and back, in each of the ways that may be asked for."""

from pathlib import Path

import pytest
import torch
from fakes import fake_spec, write_cache

from vla.base.errors import ConfigError
from vla.cache.metadata import Statistics
from vla.cache.statistics import vector_statistics
from vla.policy.agents.vla_agent import VLAAgent
from vla.policy.nn.normalize import Normalization, Standardize
from vla.policy.policy_config import policy_config

WAYS: tuple[Normalization, ...] = ("mean_std", "quantile", "min_max")


def told() -> tuple[torch.Tensor, Statistics]:
    values = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 5.0, 0.0])
    values = values + torch.tensor([2.0, -1.0, 0.3])
    return values, vector_statistics([values.numpy()])


@pytest.mark.parametrize("how", WAYS)
def test_values_come_back(how: Normalization) -> None:
    values, statistics = told()
    standardize = Standardize(3)
    standardize.fit_as(statistics, how)
    torch.testing.assert_close(standardize.invert(standardize(values)), values)
    assert standardize(values)[:, 2].abs().max() < 1e-5  # it never moved


def test_ranges_and_quantiles_become_minus_one_and_one() -> None:
    values, statistics = told()
    for how, share in (("min_max", 0.0), ("quantile", 0.01)):
        standardize = Standardize(3)
        standardize.fit_as(statistics, how)  # type: ignore[arg-type]
        found = standardize(values)[:, :2].double()
        ends = torch.quantile(found, torch.tensor([share, 1 - share]).double(), dim=0)
        torch.testing.assert_close(ends, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).double(), atol=1e-3, rtol=0)


def test_statistics_without_quantiles_are_refused_with_what_helps() -> None:
    _, statistics = told()
    without = statistics.model_copy(update={"q01": None})
    with pytest.raises(ConfigError, match=r"normalization = quantile needs quantiles.*take mean_std"):
        Standardize(3).fit_as(without, "quantile")


@pytest.mark.parametrize("how", WAYS)
def test_a_policy_normalises_state_and_action_so_and_is_loaded_so(how: Normalization, tmp_path: Path) -> None:
    sizes = {"per_view_dim": 4, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}
    cache = write_cache(tmp_path / "cache", fake_spec())
    config = policy_config(**sizes, normalization=how)
    VLAAgent.for_cache(config, cache.metadata).save_pretrained(tmp_path / "policy")
    agent = VLAAgent.from_pretrained(tmp_path / "policy")
    for name, standardize in (("action", agent.action_standardize), ("state", agent.state_standardize)):
        assert standardize is not None
        due = Standardize(16)
        due.fit_as(cache.metadata.statistics[name], how)
        assert torch.equal(standardize.mean, due.mean) and torch.equal(standardize.std, due.std)
