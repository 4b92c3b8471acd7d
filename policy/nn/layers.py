"""Sublayers of the action transformer: bidirectional attention and a gated MLP.

Only operators with a forward-mode derivative: flash and memory-efficient attention have none, so the
attention here is an explicit softmax. At 20 tokens it is as quick. RMSNorm instead of LayerNorm:
the gradient through LayerNorm's tangent is silently wrong.

B batch, N tokens, D width, H heads.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-6
ROPE_BASE = 10_000.0


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm`, with statistics in float32 at least and a derivative that compiles.

    Where its own operator is one fused kernel, as in CUDA builds, `torch.compile` of a forward-mode
    derivative breaks ("_fw_primal INTERNAL ASSERT FAILED"), as it does with LayerNorm everywhere. So it is
    written out for the compiler, which fuses it anyway; eagerly, the one kernel stays.
    """

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        assert self.eps is not None
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        inverse_rms = torch.rsqrt(values.square().mean(dim=-1, keepdim=True) + self.eps)
        return values * inverse_rms * self.weight


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

    def forward(self, x: Float[Tensor, "B H N head_dim"]) -> Float[Tensor, "B H N head_dim"]:
        """Rotate each pair (first half, second half) of the head dimensions by its position's angle."""
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention without mask, with normalised queries and keys."""

    def __init__(self, dim: int, num_heads: int, rotary: RotaryEmbedding) -> None:
        super().__init__()
        head_dim = dim // num_heads
        self.num_heads, self.scale = num_heads, 1 / math.sqrt(head_dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        # Without these the derivative of MeanFlow heads was reported to diverge.
        self.query_norm = RMSNorm(head_dim, eps=NORM_EPS)
        self.key_norm = RMSNorm(head_dim, eps=NORM_EPS)
        self.rotary = rotary

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        batch, tokens, dim = x.shape
        heads = self.qkv(x).view(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        query = self.rotary(self.query_norm(query))
        key = self.rotary(self.key_norm(key))
        weights = (query @ key.transpose(-1, -2) * self.scale).softmax(dim=-1)
        return self.out((weights @ value).transpose(1, 2).reshape(batch, tokens, dim))


class SwiGLU(nn.Module):
    """Gated MLP (arXiv 2002.05202) of 8/3 the width, rounded up to a multiple of 8."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = -(-8 * dim // 24) * 8
        self.gate_and_up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)
