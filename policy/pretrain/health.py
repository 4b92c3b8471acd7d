"""Do the features say anything, and is there anything in the predictions? What a collapse shows in.

embedding_std    of a number, averaged over all; SIGReg wants 1, collapsed features have 0
effective_rank   how many directions the features use: exp of the entropy of the shares of their
                 variance (Roy and Vetterli, 2007, of eigenvalues of the covariance)
over_mean        prediction error over that of who always says the mean; useful below 1
over_copy        prediction error over that of who says that nothing changes; useful below 1
"""

import torch
from jaxtyping import Float
from torch import Tensor

COLLAPSED_RANK, COLLAPSED_STD = 2.0, 0.05
TINY = 1e-12


def health(
    embedded: Float[Tensor, "B T D"], predicted: Float[Tensor, "B history D"]
) -> dict[str, Float[Tensor, ""]]:
    """Return the figures that cost little.

    Args:
        embedded: features of clips.
        predicted: of all instants but the first.
    """
    target = embedded[:, 1:]
    error = (predicted - target).square().mean()
    mean = (target - target.mean(dim=(0, 1))).square().mean()
    copy = (target - embedded[:, :-1]).square().mean()
    return {
        "embedding_std": embedded.flatten(0, 1).std(dim=0).mean(),
        "over_mean": error / (mean + TINY),
        "over_copy": error / (copy + TINY),
    }


def effective_rank(embedded: Float[Tensor, "B T D"]) -> float:
    """Return how many directions features use, from 1 to D."""
    rows = embedded.detach().flatten(0, 1).double()
    variance = torch.linalg.eigvalsh(torch.cov(rows.T)).clamp(min=0)
    share = variance / (variance.sum() + TINY)
    return float(torch.exp(-(share * (share + TINY).log()).sum()))


def collapse(figures: dict[str, float], weight: float) -> str:
    """Say that features have collapsed; empty where they have not.

    Args:
        figures: `embedding_std` and `effective_rank`.
        weight: of SIGReg.
    """
    rank, std = figures["effective_rank"], figures["embedding_std"]
    if rank >= COLLAPSED_RANK and std >= COLLAPSED_STD:
        return ""
    more = f"--set pretrain.sigreg={max(0.1, 2 * weight):g} --out NEW"
    return (
        f"the features have collapsed (effective rank {rank:.1f}, standard deviation {std:.3f}): they say "
        f"the same of all frames; begin anew with more of SIGReg: {more}"
    )
