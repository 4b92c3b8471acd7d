"""Validation: in evaluation mode, and for as much as fits into memory at once."""

from pathlib import Path

import pytest
import torch
from fakes import awake_agent, fake_spec, write_cache
from test_train import POLICY

from vla.policy.agents.vla_agent import VLAAgent
from vla.policy.training import validation
from vla.policy.training.validation import evaluating, validate
from vla.policy.windows import Windows


@pytest.fixture
def held_out(tmp_path: Path) -> tuple[VLAAgent, Windows]:
    cache = write_cache(tmp_path / "cache", fake_spec())
    agent = awake_agent(VLAAgent.for_cache(POLICY, cache.metadata))
    return agent, Windows(cache, agent.horizons, agent.observes, device=torch.device("cpu"), resident=True)


def test_a_policy_is_validated_in_evaluation_mode_and_trained_on_afterwards(
    held_out: tuple[VLAAgent, Windows],
) -> None:
    policy, windows = held_out
    modes: list[bool] = []
    policy.fusion.register_forward_hook(lambda *_: modes.append(policy.training))
    validate(policy.train(), windows, torch.arange(8), seed=0)
    assert (modes, policy.training) == ([False, False], True)  # of the loss and of the samples


def test_a_policy_that_was_not_training_does_not_start_to(held_out: tuple[VLAAgent, Windows]) -> None:
    policy = held_out[0].eval()
    with pytest.raises(KeyError), evaluating(policy):
        raise KeyError
    assert not policy.training


def test_windows_that_do_not_fit_at_once_give_the_figures_of_one_pass(
    held_out: tuple[VLAAgent, Windows], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    for bytes_at_once in (validation.MAX_BYTES, 1000):
        monkeypatch.setattr(validation, "MAX_BYTES", bytes_at_once)
        figures.append(validate(*held_out, torch.arange(16), seed=0))
    assert figures[1]["loss"] == pytest.approx(figures[0]["loss"], rel=1e-4)
    assert figures[1]["action_rmse"] == pytest.approx(figures[0]["action_rmse"], rel=0.2)
