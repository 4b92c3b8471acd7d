"""The fusion that keeps tokens: every token of every stream, the state and the task text become one each.

    stream 1, tokens 1 .. N ─ linear ─> tokens 1 .. N ┐
    stream 2 ...                                      ├─ one after the other ─> condition, K tokens an instant
    state    ─ linear ─> one token                    │
    task     ─ linear ─> one token                    ┘

The head attends to them; a head that is an MLP reads them side by side. Where something is in an image need
not be squeezed into one vector first.

B batch, T_obs obs_horizon, S state size, L width of the text, K tokens an instant, C condition width.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.policy.fusion.fusion import Fusion, FusionConfig, FusionSizes
from vla.policy.nn.layers import Float32Linear


class TokensConfig(FusionConfig):
    """Tokens that the head attends to; it has no settings of its own."""

    type: Literal["tokens"] = "tokens"

    def build(self, sizes: FusionSizes) -> "TokensFusion":
        return TokensFusion(sizes)


class TokensFusion(Fusion):
    """Map each token to the condition's width; learned embeddings say which one it is.

    Args:
        sizes: what comes in and goes out.
    """

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        self._names = tuple(sizes.tokens)
        self.stream_in = nn.ModuleList(nn.Linear(dim, sizes.cond_dim) for _, dim in sizes.tokens.values())
        self.state_in = Float32Linear(sizes.state_dim, sizes.cond_dim) if sizes.state_dim else None
        self.task_in = nn.Linear(sizes.task_dim, sizes.cond_dim) if sizes.task_dim else None
        count = sum(count for count, _ in sizes.tokens.values())
        self.num_tokens = count + (self.state_in is not None) + (self.task_in is not None)
        self.token_embedding = nn.Parameter(0.02 * torch.randn(self.num_tokens, sizes.cond_dim))

    def forward(
        self,
        tokens: Mapping[str, Float[Tensor, "B T_obs _N _D"]],
        state: Float[Tensor, "B T_obs S"] | None,
        task: Float[Tensor, "B T_obs L"] | None,
    ) -> Float[Tensor, "B T_obs_K C"]:
        parts = [linear(tokens[name]) for name, linear in zip(self._names, self.stream_in, strict=True)]
        if self.state_in is not None:
            parts.append(self.state_in(state)[..., None, :])
        if self.task_in is not None:
            parts.append(self.task_in(task)[..., None, :])
        dtype = self.token_embedding.dtype
        return (torch.cat([part.to(dtype) for part in parts], dim=-2) + self.token_embedding).flatten(1, 2)
