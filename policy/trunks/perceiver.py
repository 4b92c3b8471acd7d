"""The perceiver trunk: any number of tokens to a few, by learned latents that read them again and again.

    latents  = learned, [N, D]
    repeat   latents += attention(latents, tokens)
             latents += attention(latents, latents)
             latents += mlp(latents)

The Perceiver (arXiv 2103.03206), as Flamingo resamples with it (arXiv 2204.14198). With one layer and without
attention among latents it would be attention pooling with N learned queries.

B batch, T_obs obs_horizon, N latents, D width.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from vla.base.strict import Depth
from vla.cache.metadata import Statistics
from vla.cache.stream import Kind, Stream
from vla.policy.nn.layers import NORM_EPS, RMSNorm, SwiGLU
from vla.policy.nn.normalize import Standardize
from vla.policy.trunks.trunk import Trunk, TrunkConfig


class PerceiverConfig(TrunkConfig):
    """Learned latents that read all tokens, several times."""

    kinds: ClassVar[tuple[Kind, ...]] = ("tokens", "points", "series")
    type: Literal["perceiver"] = "perceiver"
    latents: Annotated[int, Field(ge=1, le=1024)] = 4
    """Tokens that come out."""
    layers: Depth = 2
    """Times that they read what came in."""
    heads: Depth = 8
    """Most heads; there are fewer where the width cannot be shared so."""

    def build(self, stream: Stream, dim: int) -> "PerceiverTrunk":
        return PerceiverTrunk(stream, dim, self)


class Reading(nn.Module):
    """Let some tokens attend to others.

    Args:
        dim: D.
        heads: most heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads = math.gcd(heads, dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self, readers: Float[Tensor, "B N D"], tokens: Float[Tensor, "B M D"]
    ) -> Float[Tensor, "B N D"]:
        query = self.query(readers).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        both = self.key_value(tokens).unflatten(-1, (2, self.num_heads, -1)).transpose(1, 3)
        key, value = both.unbind(2)
        return self.out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class PerceiverLayer(nn.Module):
    """One reading of the tokens, one of each other, and an MLP; each on a normalised residual stream.

    Args:
        dim: D.
        heads: most heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.cross, self.among, self.mlp = Reading(dim, heads), Reading(dim, heads), SwiGLU(dim)
        self.norms = nn.ModuleList(RMSNorm(dim, eps=NORM_EPS) for _ in range(3))

    def forward(
        self, latents: Float[Tensor, "B N D"], tokens: Float[Tensor, "B M D"]
    ) -> Float[Tensor, "B N D"]:
        latents = latents + self.cross(self.norms[0](latents), tokens)
        here = self.norms[1](latents)
        latents = latents + self.among(here, here)
        return latents + self.mlp(self.norms[2](latents))


class PerceiverTrunk(Trunk):
    """Standardise tokens, give them positions, and resample them.

    Args:
        stream: of kind tokens, points or series.
        dim: D.
        config: latents, layers, heads.
    """

    def __init__(self, stream: Stream, dim: int, config: PerceiverConfig) -> None:
        super().__init__(config.latents, dim)
        self.standardize = Standardize(stream.channels)
        self.token_in = nn.Linear(stream.channels, dim)
        # Points come in any order: a position would tell what is not there.
        ordered = stream.kind != "points"
        self.position = nn.Parameter(0.02 * torch.randn(stream.shape[0], dim)) if ordered else None
        self.token_norm = RMSNorm(dim, eps=NORM_EPS)
        self.latents = nn.Parameter(0.02 * torch.randn(config.latents, dim))
        self.layers = nn.ModuleList(PerceiverLayer(dim, config.heads) for _ in range(config.layers))
        self.latent_norm = RMSNorm(dim, eps=NORM_EPS)

    def fit(self, statistics: Statistics) -> None:
        self.standardize.fit(statistics.mean, statistics.std)

    def forward(self, stream: Float[Tensor, "B T_obs tokens dim"]) -> Float[Tensor, "B T_obs N D"]:
        tokens = self.token_in(self.standardize(stream.flatten(0, 1).float()))
        if self.position is not None:
            tokens = tokens + self.position
        tokens = self.token_norm(tokens)
        latents = self.latents.expand(len(tokens), -1, -1)
        for layer in self.layers:
            latents = layer(latents, tokens)
        return self.latent_norm(latents).unflatten(0, stream.shape[:2])
