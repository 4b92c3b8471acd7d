"""What decays and what does not; the average of weights and buffers."""

from pathlib import Path

import pytest
import torch
from fakes import fake_spec, write_cache
from test_train import POLICY, settings
from torch import nn

from vla.policy.agents.policy import Policy
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.training.optimizer import MovingAverage, build_optimizer, set_learning_rate


def decayed_names(model: nn.Module) -> set[str]:
    decayed, kept = build_optimizer(model, settings()).param_groups
    assert kept["weight_decay"] == 0 < decayed["weight_decay"]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in decayed["params"]}


@pytest.mark.parametrize("residual", ["attnres", "plain"])
@pytest.mark.parametrize("head", ["imf", "flow", "ddpm", "mlp", "gaussian"])
def test_what_decays_in_the_default_policy_is_what_always_did(
    head: str, residual: str, tmp_path: Path
) -> None:
    config = VLAAgentConfig.model_validate({**POLICY.model_dump(), "head": head, "residual": residual})
    policy = Policy.for_cache(config, write_cache(tmp_path, fake_spec()).metadata)
    by_name = {
        name
        for name, parameter in policy.named_parameters()
        if parameter.ndim >= 2 and not name.endswith(("queries", "token_embedding"))
    }
    assert decayed_names(policy) == by_name


class Zoo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(2, 2), nn.Conv1d(2, 2, 3)
        self.attention = nn.MultiheadAttention(2, 1)
        self.norm, self.words = nn.LayerNorm((2, 2)), nn.Embedding(4, 2)
        self.bare = nn.Parameter(torch.zeros(3, 3))


def test_maps_and_convolutions_decay_and_norms_embeddings_and_bare_parameters_do_not() -> None:
    assert decayed_names(Zoo()) == {
        "linear.weight",
        "conv.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    }


def test_a_module_may_have_a_learning_rate_of_its_own() -> None:
    zoo = Zoo()
    zoo.linear.lr_scale = 0.1  # type: ignore[assignment]
    optimizer = build_optimizer(zoo, settings())
    set_learning_rate(optimizer, 2.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(zoo.parameters()))
    own = {name for name, parameter in zoo.named_parameters() if rates[id(parameter)] == 0.2}
    assert own == {"linear.weight", "linear.bias"}
    assert [group["weight_decay"] > 0 for group in optimizer.param_groups] == [True, False, True, False]


def test_what_is_frozen_is_not_optimised() -> None:
    zoo = Zoo()
    zoo.linear.requires_grad_(False)
    names = decayed_names(zoo)
    assert "linear.weight" not in names and "conv.weight" in names


def test_the_moving_average_ramps_up() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    ema = MovingAverage(model, decay=0.5)
    expected = model.weight.item()
    for n in range(20):
        with torch.no_grad():
            model.weight.fill_(n)
        decay = min(0.5, (1 + n) / (10 + n)) if n else 0.0
        expected = decay * expected + (1 - decay) * n
        ema.update(model)
    assert isinstance(ema.module, torch.nn.Linear)
    assert ema.module.weight.item() == pytest.approx(expected)


def test_the_moving_average_never_waits_for_the_device() -> None:
    model = torch.nn.Linear(2, 2, device="meta")  # holds no values: reading one back is an error
    ema = MovingAverage(model, decay=0.5)
    for _ in range(3):
        ema.update(model)
    assert ema.updates == 3


def test_float_buffers_are_averaged_and_integer_ones_copied() -> None:
    norm = nn.BatchNorm1d(2)
    ema = MovingAverage(norm, decay=0.5)
    for value in (1.0, 3.0):
        assert norm.running_mean is not None and norm.num_batches_tracked is not None
        norm.running_mean.fill_(value)
        norm.num_batches_tracked.fill_(int(value))
        ema.update(norm)
    averaged = dict(ema.module.named_buffers())
    assert averaged["running_mean"].tolist() == pytest.approx([1 + 9 / 11 * 2] * 2)  # decay 2 / 11
    assert int(averaged["num_batches_tracked"]) == 3


def test_the_average_shares_frozen_weights_and_is_never_in_training_mode() -> None:
    zoo = Zoo()
    zoo.linear.requires_grad_(False)
    ema = MovingAverage(zoo, decay=0.5)
    assert isinstance(ema.module, Zoo) and not ema.module.training and zoo.training
    assert ema.module.linear.weight is zoo.linear.weight
    assert ema.module.conv.weight is not zoo.conv.weight
