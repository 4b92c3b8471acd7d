"""A causal transformer that grows a sequence behind a prefix, with its keys and values kept between steps.

    positions   [ prefix 1 .. P | token 1 .. N ]    each sees those before it, and itself

Plain residuals and pre-norm. While training one pass goes over a whole sequence, while drawing one over each
position.

B batch, M positions of a call, D width, H heads.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from vla.policy.nn.layers import NORM_EPS, RMSNorm, SwiGLU

Kept = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, [B, H, positions until now, D / H]."""


class CausalAttention(nn.Module):
    """Masked multi-head self-attention with normalised queries and keys.

    Args:
        dim: D.
        num_heads: H.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.query_norm = RMSNorm(dim // num_heads, eps=NORM_EPS)
        self.key_norm = RMSNorm(dim // num_heads, eps=NORM_EPS)

    def forward(
        self, x: Float[Tensor, "B M D"], kept: tuple[Tensor, Tensor] | None
    ) -> tuple[Float[Tensor, "B M D"], tuple[Tensor, Tensor]]:
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3)
        query, key, value = heads.unbind(2)
        query, key = self.query_norm(query), self.key_norm(key)
        if kept is not None:
            key, value = torch.cat([kept[0], key], dim=2), torch.cat([kept[1], value], dim=2)
        there, mine = key.shape[2], query.shape[2]
        mask = torch.ones(mine, there, dtype=torch.bool, device=x.device).tril(there - mine)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2)), (key, value)


class CausalTransformer(nn.Module):
    """Blocks of masked attention and gated MLP, and learned positions.

    Args:
        dim: D.
        num_layers: blocks.
        num_heads: H.
        positions: most of them, prefix and tokens together.
    """

    def __init__(self, dim: int, num_layers: int, num_heads: int, positions: int) -> None:
        super().__init__()
        self.attention = nn.ModuleList(CausalAttention(dim, num_heads) for _ in range(num_layers))
        self.mlp = nn.ModuleList(SwiGLU(dim) for _ in range(num_layers))
        self.norms = nn.ModuleList(RMSNorm(dim, eps=NORM_EPS) for _ in range(2 * num_layers + 1))
        self.position = nn.Parameter(0.02 * torch.randn(positions, dim))

    def forward(
        self, x: Float[Tensor, "B M D"], kept: Kept | None = None
    ) -> tuple[Float[Tensor, "B M D"], Kept]:
        """Go on with a sequence.

        Args:
            x: the next positions; all of them where nothing is kept.
            kept: what the last call returned.

        Returns:
            What comes out at these positions, and what to keep for the next ones.
        """
        begin = kept[0][0].shape[2] if kept else 0
        x = x + self.position[begin : begin + x.shape[1]]
        now: Kept = []
        for layer, (attention, mlp) in enumerate(zip(self.attention, self.mlp, strict=True)):
            mixed, both = attention(self.norms[2 * layer](x), kept[layer] if kept else None)
            now.append(both)
            x = x + mixed
            x = x + mlp(self.norms[2 * layer + 1](x))
        return self.norms[-1](x), now
