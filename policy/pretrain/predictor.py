"""LEWM's predictor: what the next instants look like, from those before and the actions between.

    features  [B, T, D] ── + positions ── blocks ── norm ── pred_proj ──> next features [B, T, D]
    actions   [B, T, D] ── shift, scale and gate every sublayer (AdaLN-zero, DiT, arXiv 2212.09748)

Each instant sees itself and those before. Gates begin at zero, so that the actions come in slowly. Names of
modules are those of LeWorldModel's checkpoints (arXiv 2603.19312).

B batch, T instants, D width, A numbers of an action.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from vla.base.lewm import HEAD_DIM

NORM_EPS = 1e-6
SMOOTHED = 10
"""What the actions between two instants are reduced to first."""


class ActionEncoder(nn.Module):
    """A linear map of each instant's actions, and an MLP.

    Args:
        size: numbers of the actions between two instants.
        dim: D.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv1d(size, SMOOTHED, kernel_size=1)
        self.embed = nn.Sequential(nn.Linear(SMOOTHED, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))

    def forward(self, actions: Float[Tensor, "B T A"]) -> Float[Tensor, "B T D"]:
        return self.embed(self.patch_embed(actions.mT).mT)


class CausalAttention(nn.Module):
    """Masked multi-head attention, with the norm before it."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * HEAD_DIM, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * HEAD_DIM, dim), nn.Dropout(dropout))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        heads = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3)
        query, key, value = heads.unbind(2)
        dropped = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropped)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """An MLP, with the norm before it."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.net(x)


class Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the actions."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attn = CausalAttention(dim, heads, dropout)
        self.mlp = FeedForward(dim, hidden, dropout)
        self.norm1, self.norm2 = (nn.LayerNorm(dim, elementwise_affine=False, eps=NORM_EPS) for _ in range(2))
        gates = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(gates.weight)
        nn.init.zeros_(gates.bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), gates)

    def forward(self, x: Float[Tensor, "B T D"], actions: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.adaLN_modulation(actions).chunk(6, dim=-1)
        x = x + gate_1 * self.attn(self.norm1(x) * (1 + scale_1) + shift_1)
        return x + gate_2 * self.mlp(self.norm2(x) * (1 + scale_2) + shift_2)


class Blocks(nn.Module):
    """Blocks, and the norm after them."""

    def __init__(self, dim: int, depth: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(Block(dim, heads, hidden, dropout) for _ in range(depth))

    def forward(self, x: Float[Tensor, "B T D"], actions: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        for block in self.layers:
            x = block(x, actions)
        return self.norm(x)


class Predictor(nn.Module):
    """Learned positions and blocks.

    Args:
        instants: most of them.
        dim: D.
        depth: blocks.
        heads: of 64 numbers each.
        hidden: width of the MLPs.
        dropout: in all of them.
    """

    def __init__(
        self, instants: int, dim: int, *, depth: int, heads: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, instants, dim))
        self.transformer = Blocks(dim, depth, heads, hidden, dropout)

    def forward(self, x: Float[Tensor, "B T D"], actions: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.transformer(x + self.pos_embedding[:, : x.shape[1]], actions)
