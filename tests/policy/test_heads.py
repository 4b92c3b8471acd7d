"""Baseline heads behind the same interface: known answers, and what all heads owe."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import fake_spec, write_cache
from torch import Tensor, nn

from vla.base.errors import ConfigError
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.batch import Batch
from vla.policy.heads.autoregressive import AutoregressiveConfig, AutoregressiveHead, choose
from vla.policy.heads.ddpm import DdpmConfig, DdpmHead, cosine_alpha_bar, sampling_levels
from vla.policy.heads.flow import FlowHead
from vla.policy.heads.gaussian import GaussianConfig, GaussianHead
from vla.policy.heads.head import HEADS, set_temperature
from vla.policy.policy_config import policy_config
from vla.policy.random import GivenNoise, RowRandom

SPREAD = 0.3
NAMES = ["imf", "flow", "ddpm", "mlp", "gaussian", "autoregressive"]
NO_NOISE = ("mlp", "gaussian", "autoregressive")
"""Heads whose loss adds no noise, so that padded actions are not read."""
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
    settings = {"type": head} | ({"width": 32} if head in ("mlp", "gaussian") else {})
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
    # Denoising heads read the padded actions as context, so only the others are exactly unmoved.
    assert (losses[0] == losses[1]) is (head in NO_NOISE)


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


def policy_of(action_dim: int, **settings: Any) -> tuple[Any, int, int]:
    sizes = {"cond_dim": 4, "obs_horizon": 1, "pred_horizon": 2, "num_action_steps": 1}
    small = {"n_emb": 32, "n_layer": 2, "n_head": 2}
    return VLAAgentConfig.model_validate({**sizes, **small, **settings}), action_dim, 1


class Constant(nn.Module):
    """Always the same prediction."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.register_buffer("values", torch.tensor(values))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.values).expand(len(x), -1)


def test_the_gaussian_loss_is_the_negative_log_likelihood_and_samples_are_reparameterised() -> None:
    head = GaussianHead(Constant(0.5, -1.0, math.log(2.0), -30.0), *policy_of(1)[:2])  # log std below -20
    action = torch.tensor([[[1.5], [-1.0]]])
    valid = torch.tensor([[True, False]])
    normal = torch.distributions.Normal(0.5, 2.0)
    loss, _ = head.compute_loss(torch.zeros(1, 1, 4), action, valid, {})
    torch.testing.assert_close(loss, -normal.log_prob(torch.tensor(1.5)))
    noise = torch.tensor([[[3.0], [1.0]]])
    sampled = head.sample(torch.zeros(1, 1, 4), GivenNoise(noise), 1)
    torch.testing.assert_close(sampled, torch.tensor([[[6.5], [-1.0]]]))
    still = GaussianHead(Constant(0.5, -1.0, 0.0, 0.0), *policy_of(1)[:2], deterministic=True)
    torch.testing.assert_close(
        still.sample(torch.zeros(1, 1, 4), GivenNoise(noise), 1), torch.tensor([[[0.5], [-1.0]]])
    )


def binned_head(action_dim: int = 2, **settings: Any) -> AutoregressiveHead:
    torch.manual_seed(0)
    head = AutoregressiveConfig(**settings).build(*policy_of(action_dim))
    head.fit_range(torch.tensor([-1.0, 2.0][:action_dim]), torch.tensor([1.0, 2.0][:action_dim]))
    return head


def test_bins_are_equal_parts_of_the_range_and_a_number_is_the_middle_of_its_own() -> None:
    head = binned_head(bins=4)
    action = torch.tensor([[-9.0, 2.0], [-1.0, 2.0], [-0.4, 2.0], [0.9, 2.0], [1.0, 2.0]])
    assert head.to_bins(action)[:, 0].tolist() == [0, 0, 1, 3, 3]
    middles = head.from_bins(head.to_bins(action))
    assert middles[:, 0].tolist() == [-0.75, -0.75, -0.25, 0.75, 0.75]
    assert middles[:, 1].tolist() == [2.0] * 5  # a dimension that never moved


def test_a_number_is_predicted_from_those_before_it_alone() -> None:
    head = binned_head(bins=8)
    cond, index = torch.randn(3, 1, 4), torch.randint(8, (3, 4))
    changed = index.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 8
    before, after = head._logits(cond, index), head._logits(cond, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_drawing_with_kept_keys_is_choosing_from_what_a_whole_pass_predicts() -> None:
    head = binned_head(bins=8, temperature=0.0)
    head.fit_range(torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 3.0]))
    cond = torch.randn(5, 1, 4)
    index = head.to_bins(head.sample(cond, RowRandom(torch.Generator().manual_seed(0)), 1)).flatten(1)
    assert torch.equal(head._logits(cond, index).argmax(dim=-1), index)


def test_a_head_that_draws_tokens_takes_another_temperature_and_no_other_head_does() -> None:
    cond, agent = torch.randn(5, 1, 4), torch.nn.Module()
    agent.head = binned_head(bins=8)
    warm = agent.head.sample(cond, RowRandom(torch.Generator().manual_seed(0)), 1)
    set_temperature(agent, 0.0)
    cold = agent.head.sample(cond, RowRandom(torch.Generator().manual_seed(0)), 1)
    agent.head = binned_head(bins=8, temperature=0.0)
    assert torch.equal(cold, agent.head.sample(cond, RowRandom(torch.Generator().manual_seed(1)), 1))
    assert not torch.equal(cold, warm)
    agent.head = GaussianConfig(width=32).build(*policy_of(1))
    with pytest.raises(ConfigError, match=r"rollout.temperature = 0.5: only heads that draw tokens .* fast"):
        set_temperature(agent, 0.5)


def test_bins_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(30_000, 3)
    uniform = torch.rand(30_000, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(choose(logits, 1.0, uniform)) / 30_000
    torch.testing.assert_close(share, torch.tensor([0.2, 0.5, 0.3]), atol=0.01, rtol=0)


@pytest.mark.slow
def test_the_autoregressive_head_keeps_both_modes_and_the_gaussian_neither() -> None:
    """Data: both numbers of a chunk are +1, or both are -1."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.where(torch.rand(64, 1, 1, generator=generator) < 0.5, 1.0, -1.0)
    action, cond = sign.expand(64, 2, 1), torch.zeros(64, 1, 4)
    valid = torch.ones(64, 2, dtype=torch.bool)
    torch.manual_seed(0)
    heads = AutoregressiveConfig(bins=4).build(*policy_of(1)), GaussianConfig(width=32).build(*policy_of(1))
    found = []
    for head in heads:
        optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
        for _ in range(150):
            loss, _ = head.compute_loss(cond, action, valid, {})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(head.sample(cond, RowRandom(torch.Generator().manual_seed(1)), 1)[..., 0])
    modes = (found[0].abs() > 0.5).all(dim=1) & (found[0][:, 0] == found[0][:, 1])
    assert modes.float().mean() > 0.95
    assert 0.25 < (found[0][:, 0] > 0).float().mean() < 0.75
    assert ((found[1] > 0.5).all(dim=1) | (found[1] < -0.5).all(dim=1)).float().mean() < 0.6


def test_every_head_is_a_file_and_nothing_lists_them() -> None:
    assert {*NAMES} <= HEADS.members().keys()
