"""Does the one-step sampler keep both modes of a mixture? A known answer for the head's objective.

Data: one number, +1 with probability 0.7 and -1 with 0.3, spread 0.1. Flow matching sampled in one
step returns the mean, 0.4, for every noise. Run it with

    python benchmarks/mixture.py --steps 2000

and find the figures in docs/log.md.
"""

import argparse
import copy
import json
import math
import time

import torch
from torch import Tensor, nn

from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.heads.imf import ImfConfig, ImfHead
from vla.policy.random import GivenNoise, RowRandom

SAMPLES = 10_000


def mixture(count: int, generator: torch.Generator) -> Tensor:
    """Draw [count, 1, 1] numbers of the mixture."""
    sign = torch.where(torch.rand(count, 1, 1, generator=generator) < 0.7, 1.0, -1.0)
    return sign + 0.1 * torch.randn(count, 1, 1, generator=generator)


def trained_head(config: ImfConfig, residual: str, steps: int, seed: int, batch: int = 256) -> ImfHead:
    """Train a small head on the mixture and return its moving average."""
    torch.manual_seed(seed)
    sizes = {"cond_dim": 4, "obs_horizon": 1, "pred_horizon": 1, "num_action_steps": 1}
    policy = VLAAgentConfig.model_validate(
        {**sizes, "n_emb": 32, "n_layer": 2, "n_head": 2, "residual": residual}
    )
    head = config.build(policy, action_dim=1, cond_tokens=1)
    average = copy.deepcopy(head)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    cond, valid = torch.zeros(batch, 1, 4), torch.ones(batch, 1, dtype=torch.bool)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * (0.525 + 0.475 * math.cos(math.pi * step / steps))
        draws = head.draw(batch, RowRandom(generator))
        loss, _ = head.compute_loss(cond, mixture(batch, generator), valid, draws)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), head.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    variants = [
        ("imf, p = 0", ImfConfig(loss_power=0.0), "attnres"),
        ("imf, p = 0.5", ImfConfig(loss_power=0.5), "attnres"),
        ("imf, p = 1", ImfConfig(loss_power=1.0), "attnres"),
        ("imf, p = 0, plain residuals", ImfConfig(loss_power=0.0), "plain"),
        (
            "imf, p = 0, finite difference",
            ImfConfig(loss_power=0.0, derivative="finite_difference"),
            "attnres",
        ),
        (
            "imf, p = 0, the paper's times",
            ImfConfig(loss_power=0.0, uniform_share=0, pinned_share=0),
            "attnres",
        ),
    ]
    noise = torch.randn(SAMPLES, 1, 1, generator=torch.Generator().manual_seed(1))
    for name, config, residual in variants:
        for seed in range(arguments.seeds):
            began = time.monotonic()
            head = trained_head(config, residual, arguments.steps, seed)
            row: dict[str, object] = {
                "variant": name,
                "seed": seed,
                "train_s": round(time.monotonic() - began, 1),
            }
            for steps in (1, 2, 5):
                samples = head.sample(torch.zeros(SAMPLES, 1, 4), GivenNoise(noise), steps).flatten()
                shares = [(samples > 0.5), (samples.abs() <= 0.5), (samples < -0.5)]
                row[f"{steps}_step_plus_between_minus"] = [round(float(s.float().mean()), 3) for s in shares]
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
