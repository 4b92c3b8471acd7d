"""Attention Residuals: identity at zero queries, and the fast mix against the formula."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.nn.action_transformer import ActionTransformer
from vla.policy.nn.dual import Dual
from vla.policy.nn.layers import Attention, RotaryEmbedding, SwiGLU
from vla.policy.nn.residual import AttnResStack, PlainStack


def sublayers(dim: int = 32, blocks: int = 6, tokens: int = 20) -> list[nn.Module]:
    rotary = RotaryEmbedding(tokens, dim // 4)
    return [layer for _ in range(blocks) for layer in (Attention(dim, 4, rotary), SwiGLU(dim))]


def with_random_norms(stack: nn.Module) -> None:
    for norm in stack.modules():
        if isinstance(norm, nn.RMSNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)


def test_with_zero_queries_it_is_the_ordinary_pre_norm_transformer() -> None:
    torch.manual_seed(0)
    layers = sublayers()
    plain, attnres = PlainStack(layers, 32), AttnResStack(layers, 32)
    with_random_norms(plain)
    attnres.load_state_dict({**plain.state_dict(), "queries": torch.zeros(13, 32)})
    x = torch.randn(3, 20, 32)
    torch.testing.assert_close(attnres(x), plain(x), atol=1e-3, rtol=0)
    for norm in attnres.modules():  # what is left is the norms' eps, next to the mean of N sources
        if isinstance(norm, nn.RMSNorm):
            norm.eps = 0.0
    torch.testing.assert_close(attnres(x), plain(x), atol=2e-5, rtol=0)


def test_gradients_agree_too_at_zero_queries() -> None:
    torch.manual_seed(1)
    layers = sublayers(blocks=2)
    plain, attnres = PlainStack(layers, 32), AttnResStack(layers, 32)
    weight, x = dict(plain.named_parameters())["sublayers.0.qkv.weight"], torch.randn(3, 20, 32)
    gradients = [torch.autograd.grad(stack(x).pow(2).mean(), weight)[0] for stack in (plain, attnres)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-3)


def slow_attnres(stack: AttnResStack, x: Tensor) -> Tensor:
    """The paper's definition, one token at a time where it matters: a softmax over depth."""
    sources = [x]
    for index in range(len(stack.sublayers) + 1):
        logits = [
            ((v / v.pow(2).mean(-1, keepdim=True).add(1e-6).sqrt()) * stack.queries[index]).sum(-1)
            for v in sources
        ]
        largest = torch.stack(logits).amax(0)
        weights = [(logit - largest).exp() for logit in logits]
        total = torch.stack(weights).sum(0)
        mixed = sum((w / total)[..., None] * v for w, v in zip(weights, sources, strict=True))
        assert isinstance(mixed, Tensor)
        if index == len(stack.sublayers):
            return stack.final_norm(mixed)
        sources.append(stack.sublayers[index](stack.norms[index](mixed)))
    raise AssertionError("unreachable")


def test_the_mix_is_the_papers_softmax_over_depth() -> None:
    torch.manual_seed(2)
    stack = AttnResStack(sublayers(blocks=3), 32).double()
    with_random_norms(stack)
    nn.init.normal_(stack.queries)
    x = torch.randn(2, 20, 32, dtype=torch.float64)
    torch.testing.assert_close(stack(x), slow_attnres(stack, x), atol=1e-10, rtol=0)


def slow_block_attnres(stack: AttnResStack, x: Tensor) -> Tensor:
    """The block variant by definition: sources are the embedding, whole blocks, and the block so far."""

    def read(query: Tensor, sources: list[Tensor]) -> Tensor:
        values = torch.stack(sources)
        logits = (functional.rms_norm(values, x.shape[-1:], eps=1e-6) * query).sum(-1)
        return (logits.softmax(0)[..., None] * values).sum(0)

    blocks: list[Tensor] = [x]
    so_far: list[Tensor] = []
    for index, (norm, sublayer) in enumerate(zip(stack.norms, stack.sublayers, strict=True)):
        if index % stack.block == 0:
            blocks, so_far = blocks + so_far, []
        output = sublayer(norm(read(stack.queries[index], blocks + so_far)))
        so_far = [so_far[0] + output] if so_far else [output]
    return stack.final_norm(read(stack.queries[-1], blocks + so_far))


@pytest.mark.parametrize("block", [2, 3, 4, 8])
def test_blocks_are_sums_of_outputs_and_the_last_one_is_read_as_far_as_it_is(block: int) -> None:
    torch.manual_seed(2)
    stack = AttnResStack(sublayers(blocks=3), 32, block=block).double()
    with_random_norms(stack)
    nn.init.normal_(stack.queries)
    x = torch.randn(2, 20, 32, dtype=torch.float64)
    torch.testing.assert_close(stack(x), slow_block_attnres(stack, x), atol=1e-10, rtol=0)


@pytest.mark.parametrize("block", [1, 4])
def test_the_derivative_goes_through_the_mixes(block: int) -> None:
    torch.manual_seed(2)
    stack = AttnResStack(sublayers(blocks=3), 32, block=block).double()
    nn.init.normal_(stack.queries)
    x, tangent = torch.randn(2, 2, 20, 32, dtype=torch.float64).unbind()
    value, expected = torch.func.jvp(stack, (x,), (tangent,))[:2]
    found = stack(Dual.of(x, tangent))
    torch.testing.assert_close(found.value, value, atol=1e-10, rtol=0)
    torch.testing.assert_close(found.tangent, expected, atol=1e-10, rtol=1e-8)


def test_no_mix_copies_all_sources_before_it() -> None:
    stack, x = AttnResStack(sublayers(), 32), torch.randn(2, 20, 32)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if function is torch.ops.aten.stack.default or function is torch.ops.aten.cat.default:
                largest = max(largest, result.numel())
            return result

    with Watch():  # type: ignore[no-untyped-call]
        stack(x)
    assert largest <= 2 * x.numel()  # the rotary embedding puts halves together


def test_scores_over_depth_are_float32_while_the_rest_is_autocast_to_bfloat16() -> None:
    torch.manual_seed(4)
    stack, x = AttnResStack(sublayers(blocks=1), 32), torch.randn(2, 20, 32)
    nn.init.normal_(stack.queries)
    expected = stack._scores(x)
    with torch.autocast("cpu", torch.bfloat16):
        scores = stack._scores(x)
        assert stack.sublayers[1](x).dtype == torch.bfloat16
    assert scores.dtype == torch.float32
    assert torch.equal(scores, expected)


def test_random_queries_change_the_function() -> None:
    torch.manual_seed(3)
    stack, x = AttnResStack(sublayers(blocks=2), 32), torch.randn(2, 20, 32)
    before = stack(x)
    nn.init.normal_(stack.queries)
    assert (stack(x) - before).abs().max() > 1e-2


def test_rotary_embedding_makes_scores_depend_on_distance_only() -> None:
    rotary = RotaryEmbedding(10, 8)
    q, k = torch.randn(8), torch.randn(8)
    rotated_q = rotary(q.expand(1, 1, 10, 8))[0, 0]
    rotated_k = rotary(k.expand(1, 1, 10, 8))[0, 0]
    scores = rotated_q @ rotated_k.T
    torch.testing.assert_close(scores.diagonal(3), scores[0, 3].expand(7))


def test_blocks_are_a_setting_and_refused_where_there_is_nothing_to_sum() -> None:
    config = VLAAgentConfig.model_validate({"n_emb": 16, "n_head": 2, "n_layer": 2, "residual_block": 4})
    stack = ActionTransformer(
        config, action_dim=3, cond_tokens=config.obs_horizon, num_times=1, num_outputs=1
    ).stack
    assert isinstance(stack, AttnResStack) and stack.block == 4
    with pytest.raises(
        ValueError, match="residual_block 2 is for Attention Residuals, and residual is plain"
    ):
        VLAAgentConfig.model_validate({"residual": "plain", "residual_block": 2})
