"""Dual numbers: each rule, and the whole network, against torch's own forward-mode derivative."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from test_imf import small_batch, small_head
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vla.policy.nn import dual
from vla.policy.nn.action_transformer import TimeEmbedding
from vla.policy.nn.dual import Dual
from vla.policy.nn.layers import Attention, Linear, RMSNorm, RotaryEmbedding, SiLU, SwiGLU

Residual = Literal["attnres", "plain"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same_as_jvp(function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
    values = [randn(*shape, seed=k) for k, shape in enumerate(shapes)]
    tangents = [randn(*shape, seed=10 + k) for k, shape in enumerate(shapes)]
    found = function(*[Dual.of(value, tangent) for value, tangent in zip(values, tangents, strict=True)])
    value, tangent, *_ = torch.func.jvp(function, tuple(values), tuple(tangents))
    torch.testing.assert_close(found.value, value, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found.tangent, tangent, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    "function",
    [
        dual.cos,
        dual.sin,
        dual.silu,
        dual.softmax,
        lambda x: dual.linear(x, randn(3, 5, seed=7), randn(3, seed=8)),
        lambda x: dual.rms_norm(x, randn(5, seed=7), 1e-6),
        lambda x: dual.inverse_rms(x, 1e-6),
        lambda x: dual.softmax_of(x.unbind(-1))[0][1],
        lambda x: dual.softmax_of(x.unbind(-1))[1],
        lambda x: dual.sum_of_products([x, x.mul(x)], [dual.sin(x), x]),
        lambda x: dual.cat([x, randn(2, 1, 5, seed=7)], dim=-2),
        lambda x: x.mul(randn(4, 1, seed=7)).add(randn(4, 5, seed=8)),
        lambda x: x.mul(x.transpose(-1, -2).flatten(-2).unflatten(-1, (4, 5))),
    ],
)
def test_every_rule_is_the_derivative(function: Callable[[Any], Any]) -> None:
    assert_same_as_jvp(function, (2, 4, 5))


def test_products_of_duals_follow_the_product_rule() -> None:
    assert_same_as_jvp(lambda a, b: a.mul(b).sub(b), (2, 4, 5), (2, 4, 5))
    assert_same_as_jvp(lambda a, b: a.matmul(b), (2, 4, 5), (2, 5, 3))
    assert_same_as_jvp(lambda a, b: dual.cat([a, b], dim=-2), (2, 4, 5), (2, 4, 5))


@pytest.mark.parametrize("name", ["attention", "swiglu", "linear", "norm", "silu"])
def test_every_layer_is_written_once_for_tensors_and_duals(name: str) -> None:
    torch.manual_seed(0)
    layers = {
        "attention": Attention(16, 2, RotaryEmbedding(6, 8)),
        "swiglu": SwiGLU(16),
        "linear": Linear(16, 3),
        "norm": RMSNorm(16, eps=1e-6),
        "silu": SiLU(),
    }
    assert_same_as_jvp(layers[name].double(), (2, 6, 16))


def test_times_are_embedded_with_their_derivative() -> None:
    assert_same_as_jvp(TimeEmbedding(16).double(), (7,))


@pytest.mark.parametrize("residual", ["attnres", "plain"])
def test_the_whole_network_has_the_derivative_that_torch_finds(residual: Residual) -> None:
    network, (cond, x, _) = small_head(residual).network.double(), small_batch()

    def u(x: Any, t: Any, h: Any) -> Any:
        return network(x, cond.double(), t, h)[0]

    assert_same_as_jvp(u, tuple(x.shape), (8,), (8,))


@pytest.mark.parametrize("residual", ["attnres", "plain"])
def test_the_derivative_is_float32_while_the_rest_is_autocast_to_bfloat16(residual: Residual) -> None:
    head, (cond, x, _) = small_head(residual), small_batch()
    t, r = torch.linspace(0.2, 1, 8), torch.linspace(0, 0.5, 8)
    expected = head._du_dt(x, t, r, cond)
    with torch.autocast("cpu", torch.bfloat16):
        found = head._du_dt(x, t, r, cond)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("residual", ["attnres", "plain"])
def test_the_derivative_costs_three_forward_passes(residual: Residual) -> None:
    head, (cond, x, _) = small_head(residual), small_batch()
    t, r = torch.linspace(0.2, 1, 8), torch.linspace(0, 0.5, 8)

    def flops(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    forward = flops(lambda: head.network(x, cond, t, t - r))
    # One for v, two for value and derivative; products of two duals, in attention, are three.
    assert flops(lambda: head._du_dt(x, t, r, cond)) < 3.2 * forward
