"""What training can be told: what lies past an episode's end, losses, clipping, and to go on for longer."""

import shutil
from pathlib import Path

import pytest
import torch
from fakes import fake_spec, write_cache
from test_train import POLICY, losses, settings

from vla.cache import FeatureCache
from vla.cache.statistics import vector_statistics
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.episode_statistics import of_episodes
from vla.policy.heads.mlp import MlpConfig
from vla.policy.training.optimizer import learning_rate
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.train import train
from vla.policy.windows import Windows

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return write_cache(tmp_path / "cache", fake_spec(lengths=(12, 9, 10)))


def policy_with(head: object) -> VLAAgentConfig:
    small = {"type": "mlp", "width": 16} if head == "mlp" else head
    return VLAAgentConfig.model_validate({**POLICY.model_dump(), "head": small})


def trained(path: Path, cache: FeatureCache, head: object = "mlp", **changes: object) -> RunDirectory:
    run = RunDirectory.create(path)
    train(run, cache, policy_with(head), settings(**{"tracker": "none", **changes}))
    return run


def test_the_last_action_is_held_past_the_end_but_not_before_the_start(cache: FeatureCache) -> None:
    agent = VLAAgent.for_cache(POLICY, cache.metadata)
    windows = Windows(cache, agent.horizons, agent.observes, device=CPU, resident=True)
    batch = windows.batch(torch.tensor([0, 5, 11]))  # the first episode has 12 frames
    held = batch.held()
    assert torch.equal(batch.action, held.action)
    assert batch.action_is_pad.sum(1).tolist() == [
        1 + 3,
        8,
        14,
    ]  # two observations, then from the current one
    assert held.action_is_pad.sum(1).tolist() == [1, 0, 0]
    assert held.action_is_pad[0, 0]


def test_holding_changes_the_loss_and_masking_is_what_was_always_done(
    cache: FeatureCache, tmp_path: Path
) -> None:
    held, masked, usual = (
        losses(trained(tmp_path / str(number), cache, steps=2, **choice))
        for number, choice in enumerate(({"past_end": "hold"}, {"past_end": "mask"}, {}))
    )
    assert held != masked == usual


def test_regression_can_learn_the_size_of_the_error(cache: FeatureCache, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", cache, {"type": "mlp", "width": 16, "loss": "l1"}, steps=1)
    assert read_metrics(run, "train")[0]["action_l1"] > 0
    head = MlpConfig(width=16, loss="l1").build(POLICY, 16, 2)
    torch.nn.init.zeros_(head.get_parameter("network.9.weight"))
    torch.nn.init.zeros_(head.get_parameter("network.9.bias"))
    action = torch.full((2, 16, 16), -3.0)
    loss, _ = head.compute_loss(torch.zeros(2, 2, 8), action, torch.ones(2, 16, dtype=torch.bool), {})
    assert loss.item() == pytest.approx(3)


@pytest.mark.parametrize(("head", "largest"), [("imf", 5.0), ("flow", 1.0), ("ddpm", 1.0), ("mlp", 1.0)])
def test_a_head_says_how_far_its_gradients_are_clipped(
    head: str, largest: float, cache: FeatureCache, tmp_path: Path
) -> None:
    assert VLAAgent.for_cache(policy_with(head), cache.metadata).grad_clip == largest
    if head == "mlp":
        own, named, other = (
            losses(trained(tmp_path / str(value), cache, head, steps=3, grad_clip=value))
            for value in (0.0, largest, 1e-3)
        )
        assert own == named != other


def test_the_learning_rate_rises_again_where_a_run_was_extended() -> None:
    whole = settings(steps=100, warmup_steps=10, lr=1.0, min_lr_share=0.1)
    longer = settings(steps=200, extended=[100], warmup_steps=10, lr=1.0, min_lr_share=0.1)
    assert [learning_rate(step, longer) for step in range(100)] == [
        learning_rate(s, whole) for s in range(100)
    ]
    assert learning_rate(99, longer) == pytest.approx(0.1, abs=0.001)
    assert learning_rate(100, longer) == pytest.approx(0.1 + 0.9 / 10)
    assert learning_rate(109, longer) == learning_rate(110, longer) == pytest.approx(1.0)
    assert learning_rate(155, longer) == pytest.approx(0.55)
    assert learning_rate(200, longer) == pytest.approx(0.1)
    steps = [abs(learning_rate(s + 1, longer) - learning_rate(s, longer)) for s in range(200)]
    assert max(steps) < 0.11  # it jumped 25-fold


def test_extensions_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="extended and steps must rise: 100, 50"):
        settings(steps=50, extended=[100])


def test_an_extended_run_that_is_interrupted_has_the_losses_of_one_that_is_not(
    cache: FeatureCache, tmp_path: Path
) -> None:
    runs = [trained(tmp_path / name, cache, steps=4) for name in ("whole", "stopped")]
    longer = settings(steps=12, extended=[4], tracker="none")
    for run in runs:
        train(run, cache, policy_with("mlp"), longer)
    shutil.rmtree(runs[1].checkpoint(12))
    assert train(runs[1], cache, policy_with("mlp"), longer).resumed_from == 8
    assert losses(runs[0]) == losses(runs[1])
    assert [row["lr"] for row in read_metrics(runs[0], "train")][4] > 1e-3 / 2


def test_held_out_episodes_are_not_looked_at_for_normalisation(cache: FeatureCache, tmp_path: Path) -> None:
    statistics = of_episodes(cache, [0, 2]).statistics
    frames = torch.cat([torch.arange(12), torch.arange(21, 31)])
    assert statistics["action"] == vector_statistics([cache.all("action")[frames].numpy()])
    assert statistics["top"] == cache.metadata.statistics["top"]
    assert of_episodes(cache, [0, 1, 2]) is cache.metadata
    run = trained(tmp_path / "run", cache, steps=1, val_episodes=1)  # which is the one in the middle
    policy = load_policy(run.policy_folder("last"))
    torch.testing.assert_close(policy.action_standardize.mean, torch.tensor(statistics["action"].mean))


def test_choices_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="past_end"):
        settings(past_end="repeat")
