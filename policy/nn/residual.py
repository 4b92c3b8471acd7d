"""How sublayers are joined: Attention Residuals, or the ordinary residual stream.

Attention Residuals (arXiv 2603.15031), full variant. A sublayer is one attention or one MLP; 12
blocks have 24. The sources of sublayer l are the embedding and the raw outputs of all earlier sublayers:

    a     = softmax over sources of  w_l · (v_n / rms(v_n))      per token; no gain, no 1/sqrt(D)
    h_l   = sum_n a_n v_n                                        values are not normalised
    v_l+1 = f_l(RMSNorm_l(h_l))

and the stack's output is RMSNorm(mix over all sources). Queries w_l start at zero: then every mix
is the mean of its sources, and because RMSNorm ignores the factor 1/N the stack computes the ordinary
pre-norm transformer exactly.

B batch, N tokens, D width, Q queries: one a sublayer and one for the output.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.policy.nn.layers import NORM_EPS, RMSNorm


class PlainStack(nn.Module):
    """Pre-norm sublayers on a residual stream: x += f(RMSNorm(x)), and a final RMSNorm."""

    def __init__(self, sublayers: Sequence[nn.Module], dim: int) -> None:
        super().__init__()
        self.sublayers = nn.ModuleList(sublayers)
        self.norms = nn.ModuleList(RMSNorm(dim, eps=NORM_EPS) for _ in sublayers)
        self.final_norm = RMSNorm(dim, eps=NORM_EPS)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        for norm, sublayer in zip(self.norms, self.sublayers, strict=True):
            x = x + sublayer(norm(x))
        return self.final_norm(x)


class AttnResStack(nn.Module):
    """The same sublayers, each reading a learned mix over depth of all outputs before it.

    Attributes:
        queries: [Q, D], bare parameters, so that no generic
            initialisation touches them, and exempt from weight decay, which would pull the mix back to
            the mean.
    """

    def __init__(self, sublayers: Sequence[nn.Module], dim: int) -> None:
        super().__init__()
        self.sublayers = nn.ModuleList(sublayers)
        self.norms = nn.ModuleList(RMSNorm(dim, eps=NORM_EPS) for _ in sublayers)
        self.final_norm = RMSNorm(dim, eps=NORM_EPS)
        self.queries = nn.Parameter(torch.zeros(len(sublayers) + 1, dim))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        sources, scores = [x], [self._scores(x)]
        for index, (norm, sublayer) in enumerate(zip(self.norms, self.sublayers, strict=True)):
            output = sublayer(norm(mix(sources, [score[index] for score in scores])))
            sources.append(output)
            scores.append(self._scores(output))
        return self.final_norm(mix(sources, [score[-1] for score in scores]))

    def _scores(self, source: Float[Tensor, "B N D"]) -> tuple[Float[Tensor, "B N"], ...]:
        """Score one source against the queries of all sublayers at once, in float32 at least.

        The key has no parameters, so it is the same for every sublayer that will read it. The scores are
        taken apart here, once, so that their gradient is put together once.
        """
        values = source.to(torch.promote_types(source.dtype, torch.float32))
        key = values * torch.rsqrt(values.square().mean(dim=-1, keepdim=True) + NORM_EPS)
        with torch.autocast(key.device.type, enabled=False):  # it would multiply in bfloat16
            return (key @ self.queries.to(key.dtype).T).unbind(-1)


def mix(
    sources: Sequence[Float[Tensor, "B N D"]], scores: Sequence[Float[Tensor, "B N"]]
) -> Float[Tensor, "B N D"]:
    """Return the weighted sum of the sources that one sublayer reads, given its score of each."""
    dtype = sources[-1].dtype  # under autocast the embedding alone is float32, and stacking would make all so
    weights = torch.stack(list(scores), dim=-1).softmax(dim=-1)
    values = torch.stack([source.to(dtype) for source in sources], dim=-2)
    return (weights.to(dtype)[..., None, :] @ values).squeeze(-2)
