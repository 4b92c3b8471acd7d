"""A policy whose large part is frozen and not saved: its constructor rebuilds it, the rest is continued."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from fakes import fake_spec, write_cache
from jaxtyping import Float
from safetensors.torch import load_file
from test_train import losses, settings
from torch import Tensor, nn

from vla.base.errors import CheckpointError
from vla.cache import FeatureCache, Observation
from vla.policy.agents.policy import Figures, Policy, load_policy
from vla.policy.batch import Batch, Draws
from vla.policy.mixture import AnyMetadata
from vla.policy.policy_config import PolicyConfig
from vla.policy.random import Random
from vla.policy.saved_policy import SavedPolicy
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_damage import run_problems
from vla.policy.training.train import train

LARGE = 64


class AdapterConfig(PolicyConfig):
    """A frozen map, and a small one that is trained."""

    type: Literal["adapter for tests"] = "adapter for tests"

    def build(self, saved: SavedPolicy) -> "AdapterPolicy":
        return AdapterPolicy(saved)


class AdapterPolicy(Policy):
    """Regresses the action from the state through a frozen map, with dropout and running statistics."""

    def __init__(self, saved: SavedPolicy) -> None:
        super().__init__(saved)
        self.large = nn.Linear(16, LARGE)
        with torch.no_grad():
            self.large.weight.copy_(torch.linspace(-1, 1, 16 * LARGE).sin().view(LARGE, 16))
            self.large.bias.zero_()
        self.large.requires_grad_(False)
        self.norm, self.dropout = nn.BatchNorm1d(LARGE), nn.Dropout(0.1)
        self.small = nn.Linear(LARGE, saved.action.channels)

    def is_saved(self, name: str) -> bool:
        return not name.startswith("large.")

    def fit(self, cache: AnyMetadata, texts: Tensor | None) -> None:
        """Take nothing."""

    def draw(self, batch: Batch, random: Random) -> Draws:
        return {}

    def loss(self, batch: Batch, draws: Draws) -> tuple[Float[Tensor, ""], Figures]:
        error = self._predict(batch.observation["state"]) - batch.action[:, -1]
        return error.square().mean(), {}

    def act(
        self, observation: Observation, memory: Any = None, random: Random | None = None, num_steps: int = 0
    ) -> tuple[Float[Tensor, "B num_action_steps A"], Any]:
        actions = self._predict(observation["state"])
        return actions[:, None].expand(-1, self.horizons.num_action_steps, -1), None

    def _predict(self, state: Tensor) -> Tensor:
        return self.small(self.dropout(self.norm(self.large(state[:, -1]))))


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return write_cache(tmp_path / "cache", fake_spec(lengths=(12, 9, 10)))


@pytest.fixture
def seeded() -> Iterator[None]:
    """Dropout draws from torch's default generator, which a run does not seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def trained(path: Path, cache: FeatureCache, **changes: object) -> RunDirectory:
    run = RunDirectory.create(path)
    run.config.write_text("")
    train(run, cache, AdapterConfig(), settings(**changes))
    return run


def test_what_is_frozen_is_neither_saved_nor_optimised_and_the_policy_comes_back(
    cache: FeatureCache, tmp_path: Path
) -> None:
    run = trained(tmp_path / "run", cache)
    folder = run.policy_folder("last")
    for path in (folder / "model.safetensors", folder / "model_raw.safetensors"):
        assert not any(name.startswith("large.") for name in load_file(path))
    optimizer = load_file(run.checkpoint(8) / "training_state/optimizer_state.safetensors")
    assert {name.split("/")[0] for name in optimizer} == {
        *("norm.weight", "norm.bias", "small.weight", "small.bias")
    }
    state = torch.randn(2, 2, 16)
    actions, _ = load_policy(folder).act({"state": state})
    assert torch.equal(actions, load_policy(folder).act({"state": state})[0])
    assert run_problems(run.path) == []


def test_statistics_that_training_moves_are_averaged_and_saved(cache: FeatureCache, tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", cache).policy_folder("last")
    averaged, plain = (load_file(folder / name) for name in ("model.safetensors", "model_raw.safetensors"))
    assert not torch.equal(averaged["norm.running_mean"], plain["norm.running_mean"])
    assert int(averaged["norm.num_batches_tracked"]) == int(plain["norm.num_batches_tracked"]) == 8


@pytest.mark.usefixtures("seeded")
def test_a_run_with_frozen_parts_is_continued_as_if_it_had_not_stopped(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Dropout, "forward", lambda _, x: x)
    whole, stopped = (trained(tmp_path / name, cache) for name in ("whole", "stopped"))
    shutil.rmtree(stopped.checkpoint(8))
    train(stopped, cache, AdapterConfig(), settings())
    assert losses(stopped) == losses(whole)
    for name in ("model.safetensors", "model_raw.safetensors"):
        expected, found = (
            load_file(run.checkpoint(8) / "pretrained_model" / name) for run in (whole, stopped)
        )
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_saved_part_that_is_missing_is_named(cache: FeatureCache, tmp_path: Path) -> None:
    policy = AdapterPolicy.for_cache(AdapterConfig(), cache.metadata)
    tensors = policy.saved_state()
    del tensors["small.bias"]
    with pytest.raises(ValueError, match=r"tensor 'small\.bias' is missing"):
        policy.load_saved(tensors)


def test_a_policy_is_not_taken_for_one_of_another_class(cache: FeatureCache, tmp_path: Path) -> None:
    from vla.policy.agents.vla_agent import VLAAgent

    AdapterPolicy.for_cache(AdapterConfig(), cache.metadata).save_pretrained(tmp_path / "policy")
    with pytest.raises(CheckpointError, match="is a AdapterPolicy, not a VLAAgent"):
        VLAAgent.from_pretrained(tmp_path / "policy")
