"""Sublayers of the action transformer: bidirectional attention and a gated MLP, on tensors and on duals.

The attention is an explicit softmax, which has a rule in `dual.py`; at 20 tokens it is as quick as fused.

B batch, N tokens, D width, H heads.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.policy.nn import dual
from vla.policy.nn.dual import Dual

NORM_EPS = 1e-6
ROPE_BASE = 10_000.0


class Linear(nn.Linear):
    """`nn.Linear`, for duals too."""

    def forward(self, x: Float[Tensor, "*batch in"] | Dual) -> Any:
        return dual.linear(x, self.weight, self.bias)


class Float32Linear(Linear):
    """A linear layer that stays in float32 (float64 in a model of that) where autocast is on.

    For standardised states and actions: bfloat16 has 8 bits, of a joint that turns by 2 rad that is 8 mrad.
    """

    def forward(self, x: Float[Tensor, "*batch in"] | Dual) -> Any:
        with torch.autocast(self.weight.device.type, enabled=False):
            return dual.linear(x.to(self.weight.dtype), self.weight, self.bias)


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm`, for duals too."""

    def forward(self, x: Float[Tensor, "*batch D"] | Dual) -> Any:
        eps = torch.finfo(torch.float32).eps if self.eps is None else self.eps  # as torch chooses it
        return dual.rms_norm(x, self.weight, eps)


class SiLU(nn.Module):
    """x * sigmoid(x), for duals too."""

    def forward(self, x: Float[Tensor, "*shape"] | Dual) -> Float[Tensor, "*shape"] | Dual:
        return dual.silu(x)


class RotaryEmbedding(nn.Module):
    """Rotary position embedding (RoFormer, arXiv 2104.09864) for a fixed number of tokens."""

    cos: Tensor
    sin: Tensor

    def __init__(self, num_tokens: int, head_dim: int) -> None:
        super().__init__()
        frequency = ROPE_BASE ** (-torch.arange(0, head_dim, 2) / head_dim)
        angle = torch.arange(num_tokens)[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, x: Float[Tensor, "B H N head_dim"] | Dual) -> Float[Tensor, "B H N head_dim"] | Dual:
        """Rotate each pair (first half, second half) of the head dimensions by its position's angle."""
        halves: Any = x.chunk(2, dim=-1)
        a, b = halves
        return dual.cat([a.mul(self.cos).sub(b.mul(self.sin)), a.mul(self.sin).add(b.mul(self.cos))], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention without mask, with normalised queries and keys."""

    def __init__(self, dim: int, num_heads: int, rotary: RotaryEmbedding) -> None:
        super().__init__()
        head_dim = dim // num_heads
        self.num_heads, self.scale = num_heads, 1 / math.sqrt(head_dim)
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.out = Linear(dim, dim, bias=False)
        # Without these the derivative of MeanFlow heads was reported to diverge.
        self.query_norm = RMSNorm(head_dim, eps=NORM_EPS)
        self.key_norm = RMSNorm(head_dim, eps=NORM_EPS)
        self.rotary = rotary

    def forward(self, x: Float[Tensor, "B N D"] | Dual) -> Float[Tensor, "B N D"] | Dual:
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = (part.transpose(-3, -2) for part in heads.unbind(-3))
        query = self.rotary(self.query_norm(query))
        key = self.rotary(self.key_norm(key))
        weights = dual.softmax(query.matmul(key.transpose(-1, -2)).mul(self.scale))
        return self.out(weights.matmul(value).transpose(-3, -2).flatten(-2))


class SwiGLU(nn.Module):
    """Gated MLP (arXiv 2002.05202) of 8/3 the width, rounded up to a multiple of 8."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = -(-8 * dim // 24) * 8
        self.gate_and_up = Linear(dim, 2 * hidden, bias=False)
        self.down = Linear(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "B N D"] | Dual) -> Float[Tensor, "B N D"] | Dual:
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down(dual.silu(gate).mul(up))
