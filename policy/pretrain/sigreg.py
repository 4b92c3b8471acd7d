"""SIGReg: how far a batch of features is from a standard normal distribution. LeJEPA, arXiv 2511.08544.

A distribution is normal when all its projections on a line are (Cramér and Wold). Of each of many random
directions, the empirical characteristic function of the projected features is held against exp(-t²/2), by the
statistic of Epps and Pulley:

    B ∫ exp(-t²/2) |1/B Σ_b exp(i t x_b) - exp(-t²/2)|² dt        over [-3, 3]

which is even in t, so half of it is summed, twice. Of B = 128 standard normal features it is about 1; of 128
equal ones 51. LeWorldModel (arXiv 2603.19312) takes 17 points, 1,024 directions, and each instant by itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor

KNOTS, LARGEST = 17, 3.0


def sigreg(features: Float[Tensor, "B T D"], directions: Float[Tensor, "D M"]) -> Float[Tensor, ""]:
    """Return the statistic, the mean over instants and directions.

    Args:
        features: of B clips at T instants, float32.
        directions: of length 1; see `random_directions`.
    """
    t = torch.linspace(0, LARGEST, KNOTS, device=features.device)
    normal = torch.exp(-t.square() / 2)
    angle = (features @ directions)[..., None] * t
    distance = (angle.cos().mean(0) - normal).square() + angle.sin().mean(0).square()
    return 2 * len(features) * torch.trapezoid(distance * normal, t).mean()


def random_directions(dim: int, count: int, device: torch.device) -> Float[Tensor, "D M"]:
    """Draw directions evenly over the sphere, with torch's own generator of the device."""
    drawn = torch.randn(dim, count, device=device)
    return drawn / drawn.norm(dim=0)
