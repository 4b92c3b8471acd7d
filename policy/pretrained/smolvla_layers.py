"""The layers of SmolVLA: those of a Llama, whose parts are called here as in its files.

B batch, N tokens, K keys, W width, H heads, G heads of keys and values, D width of a head.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

LONGEST_WAVE = 10_000.0
"""Of the rotations, whatever the SmolVLM's own `rope_theta` says: so was SmolVLA trained."""


class Memory(NamedTuple):
    """Keys and values of one layer."""

    keys: Float[Tensor, "B K G D"]
    values: Float[Tensor, "B K G D"]

    def followed_by(self, later: "Memory") -> "Memory":
        """Append those of later tokens."""
        return Memory(torch.cat([self.keys, later.keys], 1), torch.cat([self.values, later.values], 1))


class Norm(nn.Module):
    """Root-mean-square normalisation, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self._eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch W"]:
        return functional.rms_norm(x.float(), x.shape[-1:], self.weight, self._eps)


class Attention(nn.Module):
    """The four projections of an attention with grouped keys.

    Args:
        width: of the tokens.
        heads: H.
        groups: G.
        head_dim: D.
        key_width: of what keys and values are made of; 0 is the tokens themselves.
    """

    def __init__(self, width: int, heads: int, groups: int, head_dim: int, key_width: int = 0) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(key_width or width, groups * head_dim, bias=False)
        self.v_proj = nn.Linear(key_width or width, groups * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)

    def queries(self, x: Float[Tensor, "B N W"]) -> Float[Tensor, "B N H D"]:
        return self.q_proj(x).unflatten(-1, (-1, self.head_dim))

    def remember(self, x: Float[Tensor, "B N W"]) -> Memory:
        """Return keys and values, not rotated."""
        shape = (-1, self.head_dim)
        return Memory(self.k_proj(x).unflatten(-1, shape), self.v_proj(x).unflatten(-1, shape))

    def attend(
        self, queries: Float[Tensor, "B N H D"], memory: Memory, sees: Bool[Tensor, "B _N K"]
    ) -> Float[Tensor, "B N W"]:
        """Let queries read a memory where `sees` is True."""
        read = functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            memory.keys.to(queries.dtype).transpose(1, 2),
            memory.values.to(queries.dtype).transpose(1, 2),
            attn_mask=sees[:, None],
            enable_gqa=True,
        )
        return self.o_proj(read.transpose(1, 2).flatten(-2))


class GatedMLP(nn.Module):
    """SiLU-gated, two layers deep."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch W"]:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """An attention and an MLP, each behind a norm and beside a residual stream."""

    def __init__(self, attention: Attention, hidden: int, eps: float) -> None:
        super().__init__()
        width = attention.q_proj.in_features
        self.input_layernorm = Norm(width, eps)
        self.self_attn = attention
        self.post_attention_layernorm = Norm(width, eps)
        self.mlp = GatedMLP(width, hidden)

    def forward(self, x: Float[Tensor, "B N W"], read: Float[Tensor, "B N W"]) -> Float[Tensor, "B N W"]:
        """Add what the attention read to the stream, and what the MLP makes of it."""
        x = x + read
        return x + self.mlp(self.post_attention_layernorm(x))


class Stack(nn.Module):
    """Layers, with a norm at the end and a table of words at the beginning, as far as there are any."""

    def __init__(
        self, layers: list[Layer], *, norm: Norm | None = None, words: nn.Embedding | None = None
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        if words is not None:
            self.embed_tokens = words
        if norm is not None:
            self.norm = norm


def rotate(x: Float[Tensor, "B N _H D"], positions: Int64[Tensor, "_B N"]) -> Float[Tensor, "B N _H D"]:
    """Turn each pair (d, d + D/2) of a head by an angle: the position's, slower for later pairs."""
    half = x.shape[-1] // 2
    slowness = LONGEST_WAVE ** (torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (positions[..., None].float() / slowness)[:, :, None]
    sin, cos = angle.sin(), angle.cos()
    first, second = x.float().split(half, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
