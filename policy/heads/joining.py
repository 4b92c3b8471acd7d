"""Draw a chunk that joins one which is under way: guidance of real-time chunking (RTC, arXiv 2506.07339).

With t = 0 data and t = 1 noise, so that the paper's tau is 1 - t, each step is

    x^    = x_t - t u(x_t, t, t)                      where the chunk is going
    g     = min(beta, ((1 - t)^2 + t^2) / (t (1 - t)))  (Y - x^)^T diag(W) dx^/dx_t
    x_t  <- x_t - h (u(x_t, t, h) - g)                (equations 2 to 4)

u(x_t, t, h) is the mean velocity on the way from t to t - h: of a flow its velocity, whatever h; of improved
MeanFlow what the network answers, so that its x^ is a sample and not the mean of all that are possible.

B batch, T pred_horizon, P action size as it is learned.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MeanVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t [B, T, P], t [B], h [B]) -> [B, T, P], the condition already inside."""


@dataclass(frozen=True)
class Target:
    """What a chunk shall join."""

    chunk: Float[Tensor, "B T P"]
    """Y, standardised; anything where it weighs nothing."""
    weight: Float[Tensor, "T"]
    """W: 1 where it is fixed, 0 where it is free."""
    max_guidance: float
    """beta."""


@torch.no_grad()
def sample_joined(
    velocity: MeanVelocity, noise: Float[Tensor, "B T P"], num_steps: int, target: Target
) -> Float[Tensor, "B T P"]:
    """Follow guided velocities from t = 1 to 0, on a uniform grid."""
    x_t = noise
    for step in range(num_steps):
        t = x_t.new_full((len(x_t),), 1 - step / num_steps)
        to_end, towards = _guidance(velocity, x_t, t, target)
        # One step is the whole way; elsewhere the network is asked once more, for the length of a step.
        u = to_end if num_steps == 1 else velocity(x_t, t, torch.full_like(t, 1 / num_steps))
        x_t = x_t - (u - towards) / num_steps
    return x_t


@torch.enable_grad()
def _guidance(velocity: MeanVelocity, x_t: Tensor, t: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Return the mean velocity to the end, and g: the pull of what is fixed on all of the chunk."""
    moved = x_t.detach().requires_grad_()
    to_end = velocity(moved, t, t)
    ends = moved - t[:, None, None] * to_end
    error = target.weight[:, None] * (target.chunk - ends.detach())
    (pull,) = torch.autograd.grad(ends, moved, grad_outputs=error)
    time = float(t[0])
    growth = ((1 - time) ** 2 + time**2) / (time * (1 - time)) if time < 1 else float("inf")
    return to_end.detach(), min(target.max_guidance, growth) * pull
