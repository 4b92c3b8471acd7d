"""The attention-pooling trunk: several tokens to a few vectors, by heads that have learned where to look."""

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from vla.base.strict import Depth
from vla.cache.metadata import Statistics
from vla.cache.stream import Kind, Stream
from vla.policy.nn.normalize import Standardize
from vla.policy.trunks.trunk import Trunk, TrunkConfig


class AttentionPoolConfig(TrunkConfig):
    """Attention pooling over tokens."""

    kinds: ClassVar[tuple[Kind, ...]] = ("tokens",)
    type: Literal["attention_pool"] = "attention_pool"
    heads: Depth = 8
    """Most heads; there are fewer where the width cannot be shared so."""
    queries: Annotated[int, Field(ge=1, le=1024)] = 1
    """Vectors that come out."""

    def build(self, stream: Stream, dim: int) -> "AttentionPoolTrunk":
        return AttentionPoolTrunk(stream, dim, self)


class AttentionPool(nn.Module):
    """Reduce a view's tokens to a few vectors: each head of each attends where it has learned to look.

    Positions are learned and added to keys and values, so that the result can tell where in the image
    something was found, which the mean of the tokens cannot.

    Args:
        feature_dim: length of a token.
        tokens: their number.
        output_dim: length of the result.
        heads: most heads; their number divides `output_dim`.
        queries: vectors that come out.
    """

    def __init__(
        self, feature_dim: int, tokens: int, output_dim: int, heads: int = 8, queries: int = 1
    ) -> None:
        super().__init__()
        self.num_heads, self.num_queries = math.gcd(heads, output_dim), queries
        self.key = nn.Linear(feature_dim, queries * self.num_heads, bias=False)
        self.value = nn.Linear(feature_dim, output_dim)
        self.key_position = nn.Parameter(torch.zeros(tokens, queries * self.num_heads))
        self.value_position = nn.Parameter(0.02 * torch.randn(tokens, output_dim))
        self.out = nn.Linear(output_dim, output_dim)

    def forward(
        self, tokens: Float[Tensor, "*batch tokens dim"]
    ) -> Float[Tensor, "*batch queries output_dim"]:
        weights = (self.key(tokens) + self.key_position).softmax(dim=-2)
        weights = weights.unflatten(-1, (self.num_queries, self.num_heads))
        values = (self.value(tokens) + self.value_position).unflatten(-1, (self.num_heads, -1))
        return self.out((weights[..., None] * values[..., None, :, :]).sum(dim=-4).flatten(-2))


class AttentionPoolTrunk(Trunk):
    """Standardise tokens and pool them.

    Args:
        stream: of kind tokens.
        dim: D.
        config: heads.
    """

    def __init__(self, stream: Stream, dim: int, config: AttentionPoolConfig) -> None:
        super().__init__(config.queries, dim)
        self.standardize = Standardize(stream.channels)
        self.project = AttentionPool(stream.channels, stream.shape[0], dim, config.heads, config.queries)

    def fit(self, statistics: Statistics) -> None:
        self.standardize.fit(statistics.mean, statistics.std)

    def forward(self, stream: Float[Tensor, "B T_obs tokens dim"]) -> Float[Tensor, "B T_obs N D"]:
        return self.project(self.standardize(stream.float()))
