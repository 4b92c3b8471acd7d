"""Baseline heads behind the same interface: known answers, and what all heads owe."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import fake_spec, write_cache
from torch import Tensor, nn

from vla.policy.agents.vla_agent import VLAAgent
from vla.policy.batch import Batch
from vla.policy.heads.ddpm import DdpmConfig, DdpmHead, cosine_alpha_bar, sampling_levels
from vla.policy.heads.flow import FlowHead
from vla.policy.heads.head import HEADS
from vla.policy.policy_config import policy_config
from vla.policy.random import GivenNoise, RowRandom

SPREAD = 0.3
NAMES = ["imf", "flow", "ddpm", "mlp"]
ONE = (1, 1)  # an action of one number, alone in its chunk


def draws(count: int) -> Tensor:
    return torch.randn(count, 1, 1, generator=torch.Generator().manual_seed(0))


class ConstantVelocity(nn.Module):
    def forward(self, x_t: Tensor, cond: Tensor, t: Tensor) -> tuple[Tensor]:
        return (torch.full_like(x_t, 2.0),)


class GaussianVelocity(nn.Module):
    """The exact velocity for data N(0, SPREAD^2)."""

    def forward(self, x_t: Tensor, cond: Tensor, t: Tensor) -> tuple[Tensor]:
        t = t[:, None, None]
        variance = (1 - t) ** 2 * SPREAD**2 + t**2
        return (x_t * (t - (1 - t) * SPREAD**2) / variance,)


class GaussianNoise(nn.Module):
    """The exact noise prediction for data N(0, SPREAD^2)."""

    def forward(self, x_k: Tensor, cond: Tensor, time: Tensor) -> tuple[Tensor]:
        level = (time * 100).round().long() - 1
        signal = cosine_alpha_bar(100)[level][:, None, None]
        return (x_k * (1 - signal).sqrt() / (signal * SPREAD**2 + 1 - signal),)


def test_euler_steps_are_exact_for_a_constant_velocity() -> None:
    head, noise = FlowHead(ConstantVelocity(), cond_dim=1, shape=ONE), draws(5)
    for steps in (1, 3, 10):
        samples = head.sample(torch.zeros(5, 1, 1), GivenNoise(noise), steps)
        torch.testing.assert_close(samples, noise - 2)


def test_flow_samples_have_the_spread_of_the_data_in_many_steps_and_none_in_one() -> None:
    head, noise = FlowHead(GaussianVelocity(), cond_dim=1, shape=ONE), draws(4000)
    many = head.sample(torch.zeros(4000, 1, 1), GivenNoise(noise), 200)
    assert many.std() == pytest.approx(SPREAD, rel=0.05)
    assert head.sample(torch.zeros(4000, 1, 1), GivenNoise(noise), 1).std() < 1e-6


@pytest.mark.parametrize(("steps", "eta"), [(100, 0.0), (50, 0.0), (100, 1.0)])
def test_denoised_samples_have_the_spread_of_the_data(steps: int, eta: float) -> None:
    head = DdpmHead(GaussianNoise(), cond_dim=1, shape=ONE, config=DdpmConfig(eta=eta))
    samples = head.sample(torch.zeros(4000, 1, 1), RowRandom(torch.Generator().manual_seed(0)), steps)
    assert samples.std() == pytest.approx(SPREAD, rel=0.1)


class NoiseAround(nn.Module):
    """The exact noise prediction for data that is one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x_k: Tensor, cond: Tensor, time: Tensor) -> tuple[Tensor]:
        signal = cosine_alpha_bar(100)[(time * 100).round().long() - 1][:, None, None]
        return ((x_k - signal.sqrt() * self.value) / (1 - signal).sqrt(),)


@pytest.mark.parametrize(("value", "sampled"), [(4.4, 4.4), (9.0, 4.4), (-3.0, -0.2)])
def test_denoised_actions_go_as_far_as_the_demonstrations_and_no_further(
    value: float, sampled: float
) -> None:
    head = DdpmHead(NoiseAround(value), cond_dim=1, shape=ONE, config=DdpmConfig())
    head.fit_range(torch.tensor([-0.2]), torch.tensor([4.4]))  # a gripper that is open in 5 % of the frames
    samples = head.sample(torch.zeros(5, 1, 1), GivenNoise(draws(5)), 10)
    torch.testing.assert_close(samples, torch.full((5, 1, 1), sampled), atol=1e-3, rtol=0)


def test_the_range_is_the_caches_and_saved_with_the_policy(tmp_path: Path) -> None:
    agent_with("ddpm", tmp_path).save_pretrained(tmp_path / "policy")
    agent = VLAAgent.from_pretrained(tmp_path / "policy")
    assert isinstance(agent.head, DdpmHead)
    statistics = write_cache(tmp_path / "again", fake_spec()).metadata.statistics["action"]
    assert statistics.min is not None and statistics.max is not None
    for bound, due in ((agent.head.lowest, statistics.min), (agent.head.highest, statistics.max)):
        torch.testing.assert_close(agent.action_standardize.invert(bound), torch.tensor(due))


def test_noise_levels_follow_the_squared_cosine() -> None:
    signal = cosine_alpha_bar(100)
    start, half = (math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2 for time in (0.0, 0.5))
    assert signal[49] == pytest.approx(half / start, rel=1e-4)
    assert signal[0] > 0.99 and 0 < signal[-1] < 1e-5
    assert (signal.diff() < 0).all()


def test_a_sampler_visits_the_last_level_of_each_of_equal_parts() -> None:
    assert sampling_levels(100, 1) == [99]
    assert sampling_levels(100, 2) == [99, 49]
    assert sampling_levels(100, 10) == [99, 89, 79, 69, 59, 49, 39, 29, 19, 9]
    assert sampling_levels(10, 100) == sampling_levels(10, 10) == list(range(9, -1, -1))


def test_the_second_of_two_steps_is_not_wasted_on_the_first_level() -> None:
    head, noise = DdpmHead(GaussianNoise(), cond_dim=1, shape=ONE, config=DdpmConfig()), draws(4000)
    samples = head.sample(torch.zeros(4000, 1, 1), GivenNoise(noise), 2)
    assert samples.std() > 0.2 * SPREAD  # 0.27; down to the first level it was 0.08


def agent_with(head: str, tmp_path: Path) -> VLAAgent:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"per_view_dim": 4, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}
    settings = {"type": head} | ({"width": 32} if head == "mlp" else {})
    policy = policy_config(**sizes, head=settings)
    agent = VLAAgent.for_cache(policy, write_cache(tmp_path / "cache", fake_spec()).metadata)
    for name, parameter in agent.head.named_parameters():
        if ".outputs." in name:
            nn.init.normal_(parameter)
    return agent


def batch_for(agent: VLAAgent) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        observation={
            **{c: torch.randn(6, 2, 1, 8, generator=generator).half() for c in agent.camera_names},
            "state": torch.randn(6, 2, 16, generator=generator),
        },
        action=torch.randn(6, 16, 16, generator=generator),
        action_is_pad=torch.arange(16).expand(6, 16) > 12,
    )


def draws_for(agent: VLAAgent, batch: Batch) -> dict[str, Tensor]:
    return agent.draw(batch, RowRandom(torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("head", NAMES)
def test_every_head_trains_all_its_parameters_and_draws_chunks(head: str, tmp_path: Path) -> None:
    agent = agent_with(head, tmp_path)
    batch = batch_for(agent)
    loss, figures = agent.loss(batch, draws_for(agent, batch))
    loss.backward()
    assert [name for name, parameter in agent.named_parameters() if parameter.grad is None] == []
    assert loss.isfinite() and all(value.isfinite() for value in figures.values())
    chunk = agent.predict_action_chunk(batch.observation)
    assert chunk.shape == (6, 16, 16) and chunk.isfinite().all()


@pytest.mark.parametrize("head", NAMES)
def test_padded_actions_are_not_regressed(head: str, tmp_path: Path) -> None:
    agent = agent_with(head, tmp_path)
    batch = batch_for(agent)
    changed = batch.action.clone()
    changed[:, 13:] += 5
    other = Batch(**{**vars(batch), "action": changed})
    losses = [agent.loss(b, draws_for(agent, b))[0].item() for b in (batch, other)]
    # Denoising heads read the padded actions as context, so only regression is exactly unmoved.
    assert (losses[0] == losses[1]) is (head == "mlp")


@pytest.mark.parametrize("head", NAMES)
def test_a_head_survives_saving_and_loading(head: str, tmp_path: Path) -> None:
    agent = agent_with(head, tmp_path).eval()
    agent.save_pretrained(tmp_path / "policy")
    loaded, batch, noise = (
        VLAAgent.from_pretrained(tmp_path / "policy"),
        batch_for(agent),
        torch.randn(6, 16, 16),
    )
    chunks = [a.predict_action_chunk(batch.observation, 3, GivenNoise(noise)) for a in (agent, loaded)]
    assert torch.equal(*chunks)


def test_regression_ignores_noise(tmp_path: Path) -> None:
    agent = agent_with("mlp", tmp_path)
    batch = batch_for(agent)
    assert torch.equal(*[agent.predict_action_chunk(batch.observation) for _ in range(2)])


def test_every_head_is_a_file_and_nothing_lists_them() -> None:
    assert {*NAMES} <= HEADS.members().keys()
