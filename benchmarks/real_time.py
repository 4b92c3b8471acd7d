"""How chunks are best made to join: guided in several steps, guided in one, or overwritten.

Ideal policies, without a network: paths are Gaussian processes about one of two ways, +1 and -1, so the
velocity of flow matching is known exactly, and the mean velocity of improved MeanFlow is its integral. What
is measured is the way of joining, not what a network has learned.

    python benchmarks/real_time.py [--rows 512]
"""

import argparse
import json
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vla.policy.heads.joining import MeanVelocity, Target, sample_joined
from vla.rollout.execution.real_time import soft_mask

LENGTH, DONE, DELAY = 16, 8, 2
"""Of a chunk; executed before the next; of these fixed when that comes."""
SPREAD, SMOOTHNESS, NUGGET = 0.3, 4.0, 1e-4
INNER = 16
"""Euler steps that stand for one answer of improved MeanFlow."""


def covariance(length: int) -> Tensor:
    """Return that of a path about its way."""
    time = torch.arange(length, dtype=torch.float64)
    return SPREAD**2 * torch.exp(-(((time[:, None] - time) / SMOOTHNESS) ** 2) / 2) + NUGGET * torch.eye(
        length
    )


class Ideal:
    """The velocity of flow matching for a mixture of two Gaussians, in closed form."""

    def __init__(self) -> None:
        self.values, self.vectors = torch.linalg.eigh(covariance(LENGTH).double())

    def velocity(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return E[e - x | x_t], [B, T, 1]."""
        time = t[:, None].double()
        noisy = (1 - time) ** 2 * self.values + time**2
        ends, scores = [], []
        for way in (1.0, -1.0):
            off = (x_t[..., 0].double() - (1 - time) * way) @ self.vectors
            ends.append(way + ((1 - time) * self.values / noisy * off) @ self.vectors.T)
            scores.append(-(off**2 / noisy).sum(1) / 2)
        share = torch.stack(scores, dim=1).softmax(1)
        x = (share[:, :1] * ends[0] + share[:, 1:] * ends[1]).to(x_t.dtype)[..., None]
        return (x_t - x) / t.clamp(min=1e-3)[:, None, None]

    def mean_velocity(self, x_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """Integrate it from t to t - h."""
        x, step = x_t, h / INNER
        for k in range(INNER):
            x = x - step[:, None, None] * self.velocity(x, t - k * step)
        return (x_t - x) / h.clamp(min=1e-6)[:, None, None]


def guided(velocity: MeanVelocity, steps: int, noise: Tensor, target: Target) -> Tensor:
    """Sample as the policy does."""
    return sample_joined(velocity, noise, steps, target)


def unguided(velocity: MeanVelocity, steps: int, noise: Tensor, target: Target) -> Tensor:
    """Sample as if nothing were under way."""
    return sample_joined(velocity, noise, steps, Target(target.chunk, 0 * target.weight, 0.0))


def overwritten(velocity: MeanVelocity, steps: int, noise: Tensor, target: Target) -> Tensor:
    """Sample with what is fixed put in at each noise level (RePaint, arXiv 2201.09865, no repeats)."""
    x_t, fixed = noise, (target.weight >= 1)[:, None]
    for k in range(steps):
        t = torch.full((len(x_t),), 1 - k / steps)
        x_t = torch.where(fixed, torch.lerp(target.chunk, noise, t[:, None, None]), x_t)
        x_t = x_t - velocity(x_t, t, torch.full_like(t, 1 / steps)) / steps
    return x_t


def by_noise(velocity: MeanVelocity, rounds: int, noise: Tensor, target: Target) -> Tensor:
    """Move the noise itself, so that one step ends nearer to what is fixed, and take that step."""
    one, e = torch.ones(len(noise)), noise
    for _ in range(rounds):
        e = e.detach().requires_grad_()
        ends = e - velocity(e, one, one)
        error = target.weight[:, None] * (target.chunk - ends.detach())
        (pull,) = torch.autograd.grad(ends, e, grad_outputs=error)
        e = e.detach() + pull
    return e.detach() - velocity(e.detach(), one, one)


def measure(rows: int, draw: Callable[[Tensor, Target], Tensor]) -> dict[str, float]:
    """Join chunks to the first halves of whole paths, and say how well that went."""
    torch.manual_seed(0)
    way = torch.where(torch.rand(rows, 1) < 0.5, -1.0, 1.0)
    path = way + torch.randn(rows, LENGTH) @ torch.linalg.cholesky(covariance(LENGTH)).float().T
    left = LENGTH - DONE
    chunk = torch.cat([path[:, DONE:], path[:, -1:].expand(-1, DONE)], dim=1)[..., None]
    weight = torch.tensor([*soft_mask(left, DELAY), *[0.0] * DONE])
    new = draw(torch.randn(rows, LENGTH, 1), Target(chunk, weight, 5.0))[..., 0]
    executed = torch.cat([chunk[:, :DELAY, 0], new[:, DELAY:]], dim=1)
    bend = executed[:, : DELAY + 2].diff(n=2)[:, -2:].square().mean().sqrt()
    whole, vectors = torch.linalg.eigh(covariance(LENGTH))
    off = ((new - new.mean(1).sign()[:, None]).double() @ vectors) ** 2 / whole
    return {
        "same way": float((executed[:, DELAY:].mean(1).sign() == way[:, 0]).float().mean()),
        "bend at the joint": float(bend / path.diff(n=2).square().mean().sqrt()),
        "strangeness": float(off.mean(1).median()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512)
    rows, ideal = parser.parse_args().rows, Ideal()

    def flow(x_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
        return ideal.velocity(x_t, t)

    heads: list[tuple[str, MeanVelocity, tuple[int, ...]]] = [
        ("flow", flow, (5, 10)),
        ("imf", ideal.mean_velocity, (1, 2, 5)),
    ]
    for name, velocity, counts in heads:
        for steps in counts:
            ways: dict[str, Callable[[Tensor, Target], Tensor]] = {
                "none": partial(unguided, velocity, steps),
                "overwritten": partial(overwritten, velocity, steps),
                "guided": partial(guided, velocity, steps),
            }
            if steps == 1:
                for rounds in (1, 3, 10):
                    ways[f"noise, {rounds} rounds"] = partial(by_noise, velocity, rounds)
            for way, draw in ways.items():
                figures = {key: round(value, 3) for key, value in measure(rows, draw).items()}
                print(json.dumps({"head": name, "steps": steps, "joined": way, **figures}), flush=True)


if __name__ == "__main__":
    main()
