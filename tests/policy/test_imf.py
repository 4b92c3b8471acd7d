"""Improved MeanFlow: the identity on a flow with known solution, the derivative, the sampler."""

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.heads.head import masked_mean_square
from vla.policy.heads.imf import ImfConfig, ImfHead, num_flow_rows, sample_times, total_derivative
from vla.policy.nn.action_transformer import ActionTransformer
from vla.policy.nn.dual import Dual, elementwise
from vla.policy.nn.residual import AttnResStack
from vla.policy.random import GivenNoise, RowRandom

SPREAD = 0.3  # of the Gaussian data in the analytic flow


def scale(t: Tensor) -> Tensor:
    return ((1 - t) ** 2 * SPREAD**2 + t**2).sqrt()


def scale_slope(t: Tensor) -> Tensor:
    return (t - (1 - t) * SPREAD**2) / scale(t)


def gaussian_flow(x: Any, t: Any, h: Any) -> tuple[Any, Any]:
    """Exact average and instantaneous velocity for data N(0, SPREAD^2): x_r = x_t scale(r) / scale(t)."""
    t, h = t[..., None, None], h[..., None, None]
    if isinstance(h, Tensor) and not h.any():
        instantaneous = x * scale_slope(t) / scale(t)
        return instantaneous, instantaneous
    at_r = elementwise(t.sub(h), scale, scale_slope)
    share = at_r.mul(elementwise(t, lambda t: 1 / scale(t), lambda t: -scale_slope(t) / scale(t) ** 2))
    part = share.mul(elementwise(h, lambda h: -1 / h, lambda h: 1 / h**2))
    average = x.mul(part.add(elementwise(h, lambda h: 1 / h, lambda h: -1 / h**2)))
    return average, None


def gaussian_samples(count: int = 512) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    t = 0.1 + 0.9 * torch.rand(count, generator=generator, dtype=torch.float64)
    r = 0.95 * t * torch.rand(count, generator=generator, dtype=torch.float64)
    x = scale(t)[:, None, None] * torch.randn(count, 1, 1, generator=generator, dtype=torch.float64)
    return x, t, r


def test_the_compound_velocity_is_the_instantaneous_one_on_an_exact_flow() -> None:
    x, t, r = gaussian_samples()
    h = (t - r)[:, None, None]
    u, v = gaussian_flow(x, t, t - r)[0], gaussian_flow(x, t, torch.zeros_like(t))[1]
    compound = u + h * total_derivative(gaussian_flow, x, t, r)
    torch.testing.assert_close(compound, v, atol=1e-10, rtol=0)


def test_forgetting_that_h_moves_with_t_is_far_off() -> None:
    x, t, r = gaussian_samples()
    h, ones = t - r, torch.ones_like(t)
    u, v = gaussian_flow(x, t, h)[0], gaussian_flow(x, t, torch.zeros_like(t))[1]
    wrong = gaussian_flow(Dual.of(x, v), Dual.of(t, ones), Dual.of(h, torch.zeros_like(h)))[0].tangent
    error = u + h[:, None, None] * wrong - v
    assert error.pow(2).mean().sqrt() > 0.1


def test_one_step_from_noise_has_the_spread_of_the_data() -> None:
    class Exact(nn.Module):
        def forward(self, x: Tensor, cond: Tensor, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            return gaussian_flow(x, t, h)

    head = ImfHead(Exact(), cond_dim=4, shape=(1, 1), config=ImfConfig())
    noise = torch.randn(20_000, 1, 1, generator=torch.Generator().manual_seed(1))
    for steps in (1, 2, 5):  # the exact average velocity gives the same answer on any grid
        samples = head.sample(torch.zeros(20_000, 1, 4), GivenNoise(noise), steps)
        torch.testing.assert_close(samples, SPREAD * noise, atol=1e-4, rtol=1e-4)


def small_network(residual: Literal["attnres", "plain"] = "attnres", **changes: int) -> ActionTransformer:
    sizes = {"cond_dim": 5, "obs_horizon": 2, "pred_horizon": 4, "num_action_steps": 1, "n_emb": 32}
    config = VLAAgentConfig.model_validate(
        {**sizes, "n_layer": 2, "n_head": 4, "residual": residual, **changes}
    )
    return ActionTransformer(config, 3, cond_tokens=config.obs_horizon, num_times=2, num_outputs=2)


def small_head(residual: Literal["attnres", "plain"] = "attnres", **settings: object) -> ImfHead:
    torch.manual_seed(0)
    network = small_network(residual)
    for output in network.outputs:  # they start at zero; random ones make a real test
        assert isinstance(output, nn.Linear)
        nn.init.normal_(output.weight, std=0.2)
    if isinstance(network.stack, AttnResStack):
        nn.init.normal_(network.stack.queries, std=0.2)
    return ImfHead(network, cond_dim=5, shape=(4, 3), config=ImfConfig.model_validate(settings))


def small_batch(rows: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    cond = torch.randn(rows, 2, 5, generator=generator)
    action = torch.randn(rows, 4, 3, generator=generator)
    return cond, action, torch.ones(rows, 4, dtype=torch.bool)


def draws_for(head: ImfHead, seed: int, rows: int = 8) -> dict[str, Tensor]:
    return head.draw(rows, RowRandom(torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("residual", ["attnres", "plain"])
def test_the_derivative_of_the_real_head_equals_finite_differences(
    residual: Literal["attnres", "plain"],
) -> None:
    head = small_head(residual).double()
    cond, x, _ = (tensor.double() for tensor in small_batch())
    t, r = torch.linspace(0.2, 1, 8).double(), torch.linspace(0, 0.5, 8).double()

    def velocities(x: Tensor, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return head.network(x, cond, t, h)

    forward = total_derivative(velocities, x, t, r)
    _, v = velocities(x, t, torch.zeros_like(t))
    step = 1e-5
    ahead = velocities(x + step * v, t + step, t + step - r)[0]
    behind = velocities(x - step * v, t - step, t - step - r)[0]
    torch.testing.assert_close(forward, (ahead - behind) / (2 * step), atol=1e-7, rtol=1e-6)


def test_gradients_hardly_depend_on_how_the_derivative_is_taken() -> None:
    gradients = []
    for derivative in ("jvp", "finite_difference"):
        head = small_head(derivative=derivative)
        loss, _ = head.compute_loss(*small_batch(), draws_for(head, 3))
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in head.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() / gradients[0].norm() < 1e-3


def test_no_gradient_flows_through_the_derivative() -> None:
    head = small_head()
    cond, action, valid = small_batch()
    draws = draws_for(head, 4)
    loss, parts = head.compute_loss(cond, action, valid, draws)
    weight = head.get_parameter("network.outputs.0.weight")
    expected = torch.autograd.grad(loss, weight)[0]

    noise, t, r = draws["noise"], draws["t"], draws["r"]
    h, x_t = t - r, torch.lerp(action, noise, t[:, None, None])
    u, v_hat = head.network(x_t, cond, t, h)
    constant = total_derivative(lambda x, t, h: head.network(x, cond, t, h), x_t, t, r).detach()
    u_error = (u + h[:, None, None] * constant - (noise - action)).pow(2).mean((1, 2))
    v_error = (v_hat - (noise - action)).pow(2).mean((1, 2))
    by_hand = sum((e / (e.detach() + 1e-3) ** 0.5).mean() for e in (u_error, v_error))
    assert isinstance(by_hand, Tensor)
    torch.testing.assert_close(loss, by_hand)
    found = torch.autograd.grad(by_hand, weight)[0]
    torch.testing.assert_close(found, expected)
    assert set(parts) == {"flow_mse", "meanflow_mse", "v_mse", "du_dt_rms"}


def test_times_are_ordered_and_the_first_half_is_plain_flow_matching() -> None:
    config = ImfConfig()
    t, r = sample_times(10_000, config, RowRandom(torch.Generator().manual_seed(0)))
    flow = num_flow_rows(10_000, config)
    assert flow == 5000
    assert torch.equal(t[:flow], r[:flow])
    assert ((r >= 0) & (r <= t) & (t <= 1)).all()
    pinned = ((t == 1) & (r == 0)).double().mean() * 2
    assert abs(pinned - config.pinned_share) < 0.01


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("flow_share", [0.5, 0.25, 0.29, 0.0, 1.0])
def test_the_loss_is_the_same_for_any_number_of_processes_and_passes(flow_share: float, passes: int) -> None:
    # 18 rows are 9 for each of two processes and 6 for each of three, and half of 9 is no whole number.
    head, (cond, action, valid) = small_head(flow_share=flow_share), small_batch(18)
    losses = []
    for world in (1, 2, 3):
        parts = []
        for rank in range(world):
            draws = head.draw(18 // world, RowRandom(torch.Generator().manual_seed(5), rank, world))
            rows = [tensor[rank::world] for tensor in (cond, action, valid)]
            for number in range(passes):
                mine = {name: tensor[number::passes] for name, tensor in draws.items()}
                some_cond, some_action, some_valid = (row[number::passes] for row in rows)
                parts.append(head.compute_loss(some_cond, some_action, some_valid, mine)[0])
        losses.append(torch.stack(parts).mean().item())
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)


def test_padded_actions_do_not_count() -> None:
    error, valid = torch.randn(3, 4, 2), torch.tensor([[True, True, False, False]] * 3)
    changed = error.clone()
    changed[:, 2:] = 1e6
    torch.testing.assert_close(masked_mean_square(changed, valid), error[:, :2].pow(2).mean((1, 2)))


def test_an_untrained_head_returns_its_noise() -> None:
    cond, noise, _ = small_batch()
    head = ImfHead(small_network(), cond_dim=5, shape=(4, 3), config=ImfConfig())
    assert torch.equal(head.sample(cond, GivenNoise(noise), 1), noise)


@pytest.mark.slow
def test_one_step_samples_have_both_modes_of_a_mixture() -> None:
    torch.manual_seed(0)
    sizes = {"cond_dim": 2, "obs_horizon": 1, "pred_horizon": 1, "num_action_steps": 1}
    config = VLAAgentConfig.model_validate({**sizes, "n_emb": 32, "n_layer": 1, "n_head": 2})
    network = ActionTransformer(
        config, action_dim=1, cond_tokens=config.obs_horizon, num_times=2, num_outputs=2
    )
    head = ImfHead(network, cond_dim=2, shape=(1, 1), config=ImfConfig(loss_power=0.0))
    optimizer = torch.optim.AdamW(head.parameters(), lr=6e-3, betas=(0.9, 0.95))
    steps = 300
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 6e-3 * min(1, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        sign = torch.where(torch.rand(512, 1, 1) < 0.7, 1.0, -1.0)
        action = sign + 0.1 * torch.randn(512, 1, 1)
        draws = head.draw(512, RowRandom())
        loss, _ = head.compute_loss(
            torch.zeros(512, 1, 2), action, torch.ones(512, 1, dtype=torch.bool), draws
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
    samples = head.sample(torch.zeros(4000, 1, 2), RowRandom(), 1).flatten()
    plus, minus = (samples > 0.5).double().mean(), (samples < -0.5).double().mean()
    # Flow matching in one step puts everything between the modes, at the mean.
    assert 0.55 < plus < 0.8 and 0.12 < minus < 0.35, (plus, minus)
