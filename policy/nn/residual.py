"""How sublayers are joined: Attention Residuals, or the ordinary residual stream.

Attention Residuals (arXiv 2603.15031). A sublayer is one attention or one MLP; 12 layers have 24. In the full
variant the sources of sublayer l are the embedding and the raw outputs of all earlier sublayers:

    a     = softmax over sources of  w_l · (v_n / rms(v_n))      per token; no gain, no 1/sqrt(D)
    h_l   = sum_n a_n v_n                                        values are not normalised
    v_l+1 = f_l(RMSNorm_l(h_l))

and the stack's output is RMSNorm(mix over all sources). Queries w_l start at zero: then every mix
is the mean of its sources, and because RMSNorm ignores the factor 1/N the stack computes the ordinary
pre-norm transformer exactly. In the block variant the outputs of a few sublayers are summed to one source.

Queries do not depend on the input, so neighbouring sublayers read older sources together: one pass over
them makes a mix for each, which then counts as one source, with the logarithm of its sum of exponentials as
its score. That is the same softmax. For 25 mixes it moves 155 times a source's size instead of 325.

B batch, N tokens, D width, Q queries: one a sublayer and one for the output.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.policy.nn import dual
from vla.policy.nn.dual import Dual
from vla.policy.nn.layers import NORM_EPS, RMSNorm


class PlainStack(nn.Module):
    """Pre-norm sublayers on a residual stream: x += f(RMSNorm(x)), and a final RMSNorm."""

    def __init__(self, sublayers: Sequence[nn.Module], dim: int) -> None:
        super().__init__()
        self.sublayers = nn.ModuleList(sublayers)
        self.norms = nn.ModuleList(RMSNorm(dim, eps=NORM_EPS) for _ in sublayers)
        self.final_norm = RMSNorm(dim, eps=NORM_EPS)

    def forward(self, x: Float[Tensor, "B N D"] | Dual) -> Float[Tensor, "B N D"] | Dual:
        for norm, sublayer in zip(self.norms, self.sublayers, strict=True):
            x = x.add(sublayer(norm(x)))
        return self.final_norm(x)


class AttnResStack(nn.Module):
    """The same sublayers, each reading a learned mix over depth of all outputs before it.

    Args:
        sublayers: attention and MLP by turns.
        dim: D.
        block: sublayers whose outputs are one source together, their sum so far; 1 is the full variant, 2
            to 8 are the paper's blocks, which cost less.

    Attributes:
        queries: [Q, D], bare parameters, so that no generic
            initialisation touches them, and exempt from weight decay, which would pull the mix back to
            the mean.
    """

    def __init__(self, sublayers: Sequence[nn.Module], dim: int, block: int = 1) -> None:
        super().__init__()
        self.sublayers = nn.ModuleList(sublayers)
        self.norms = nn.ModuleList(RMSNorm(dim, eps=NORM_EPS) for _ in sublayers)
        self.final_norm = RMSNorm(dim, eps=NORM_EPS)
        self.queries = nn.Parameter(torch.zeros(len(sublayers) + 1, dim))
        self.block = block
        self._together = block if block > 1 else math.isqrt(len(self.queries))

    def forward(self, x: Float[Tensor, "B N D"] | Dual) -> Float[Tensor, "B N D"] | Dual:
        sources, scores, output = [x], [self._scores(x)], x
        for start in range(0, len(self.sublayers), self._together):
            end = min(start + self._together, len(self.sublayers))
            older = self._mix_older(sources, scores, start, end)
            new: list[Any] = []  # sources since then, and their scores
            new_scores: list[Any] = []
            for index, (mixed, score) in zip(range(start, end), older, strict=True):
                if new:
                    weights, _ = dual.softmax_of([score, *[other[..., index] for other in new_scores]])
                    mixed = mix([mixed, *new], weights)
                output = self.sublayers[index](self.norms[index](mixed))
                if self.block > 1 and new:
                    output = new.pop().add(output)
                    new_scores.pop()
                new.append(output)
                new_scores.append(self._scores(output))
            sources, scores = [*sources, *new], [*scores, *new_scores]
        ((mixed, _),) = self._mix_older(sources, scores, len(self.sublayers), len(self.queries))
        return self.final_norm(mixed)

    def _scores(self, source: Float[Tensor, "B N D"] | Dual) -> Any:
        """Score one source against the queries of all sublayers at once, [B, N, Q], in float32 at least.

        The key has no parameters, so it is the same for every sublayer that will read it.
        """
        values = source.to(torch.promote_types(source.dtype, torch.float32))
        with torch.autocast(self.queries.device.type, enabled=False):  # it would multiply in bfloat16
            products = dual.linear(values, self.queries.to(values.dtype))
            return products.mul(dual.inverse_rms(values, NORM_EPS))

    @staticmethod
    def _mix_older(
        sources: Sequence[Any], scores: Sequence[Any], start: int, end: int
    ) -> list[tuple[Any, Any]]:
        """Return what sublayers from `start` to `end` read of these sources: (mix, its score) of each."""
        weights, together = dual.softmax_of([score[..., start:end] for score in scores])
        return [
            (mix(sources, [weight[..., k] for weight in weights]), together[..., k])
            for k in range(end - start)
        ]


def mix(sources: Sequence[Any], weights: Sequence[Float[Tensor, "B N"] | Dual]) -> Any:
    """Return the weighted sum of sources [B, N, D], of the type of the last: of autocast, if that is on."""
    values = [source.to(weights[0].dtype) for source in sources]
    mixed = dual.sum_of_products(values, [weight[..., None] for weight in weights])
    return mixed.to(sources[-1].dtype)
