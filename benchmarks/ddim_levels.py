"""Which noise levels should DDIM visit? Held-out error of one trained head, by spacing and number of steps.

    python benchmarks/ddim_levels.py --seeds 3

Data: a condition c of 4 numbers, and chunks of 8 actions of 2 numbers, s f(c) + 0.02 noise, with f a sine of
random phase and frequency, and s = 1 for 70 % of the rows, -1 for the others. A head is trained with noise
prediction, once a seed; its moving average then answers 500 conditions that it never saw. What is printed,
as a line of JSON a seed, (error, plus):

error   root mean square distance of a chunk from the nearer of f(c) and -f(c); the data themselves have 0.02
plus    share of chunks that are nearer to f(c): 0.7 in the data

The spacings' names are those of diffusers. Figures: docs/log.md.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn

from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.heads.ddpm import DdpmConfig, DdpmHead
from vla.policy.nn.action_transformer import ActionTransformer
from vla.policy.random import GivenNoise, RowRandom

HORIZON, ACTIONS, BATCH, HELD_OUT = 8, 2, 64, 500
SPREAD = 0.02


def linspace(levels: int, steps: int) -> list[int]:
    """From the last level to the first, both included."""
    return [int(x) for x in torch.linspace(levels - 1, 0, steps).round()]


def leading(levels: int, steps: int) -> list[int]:
    """The first level of each of `steps` equal parts."""
    return [part * (levels // steps) for part in reversed(range(steps))]


def trailing(levels: int, steps: int) -> list[int]:
    """The last level of each of `steps` equal parts."""
    return [round(levels - part * levels / steps) - 1 for part in range(steps)]


SPACINGS: dict[str, Callable[[int, int], list[int]]] = {
    "linspace": linspace,
    "leading": leading,
    "trailing": trailing,
    "trailing from 98": lambda levels, steps: [min(k, levels - 2) for k in trailing(levels, steps)],
    "trailing from 96": lambda levels, steps: [min(k, levels - 4) for k in trailing(levels, steps)],
}


def chunk_of(cond: Tensor) -> Tensor:
    """Return f(c), [rows, HORIZON, ACTIONS], about unit scale."""
    phase = torch.linspace(0, 3, HORIZON)[:, None] * (1 + 0.5 * cond[:, None, :2]) + 2 * cond[:, None, 2:]
    return 1.4 * torch.sin(phase)


def draw(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw conditions [rows, 1, 4] and chunks."""
    cond = torch.rand(rows, 4, generator=generator) * 2 - 1
    sign = torch.where(torch.rand(rows, 1, 1, generator=generator) < 0.7, 1.0, -1.0)
    noise = torch.randn(rows, HORIZON, ACTIONS, generator=generator)
    return cond[:, None], sign * chunk_of(cond) + SPREAD * noise


def trained_head(steps: int, seed: int) -> DdpmHead:
    """Train a small head, and return its moving average."""
    torch.manual_seed(seed)
    sizes = {"cond_dim": 4, "obs_horizon": 1, "pred_horizon": HORIZON, "num_action_steps": 1}
    policy = VLAAgentConfig.model_validate(
        {**sizes, "n_emb": 64, "n_layer": 2, "n_head": 4, "residual": "plain"}
    )
    network = ActionTransformer(
        policy, action_dim=ACTIONS, cond_tokens=policy.obs_horizon, num_times=1, num_outputs=1
    )
    head = DdpmHead(network, cond_dim=4, shape=(HORIZON, ACTIONS), config=DdpmConfig())
    head.fit_range(-1.5 * torch.ones(ACTIONS), 1.5 * torch.ones(ACTIONS))
    average = copy.deepcopy(head)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    valid = torch.ones(BATCH, HORIZON, dtype=torch.bool)
    for step in range(steps):
        cond, action = draw(BATCH, generator)
        loss, _ = head.compute_loss(cond, action, valid, head.draw(BATCH, RowRandom(generator)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), head.parameters(), strict=True):
                slow.lerp_(fast, 1 - min(0.995, (1 + step) / (10 + step)))
    return average


def figures(head: DdpmHead, spacing: Callable[[int, int], list[int]], steps: int, seed: int) -> list[float]:
    """Return (error, plus) over conditions that were not trained on."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    cond, _ = draw(HELD_OUT, generator)
    noise = torch.randn(HELD_OUT, HORIZON, ACTIONS, generator=generator)
    with mock.patch("vla.policy.heads.ddpm.sampling_levels", spacing):
        chunk = head.sample(cond, GivenNoise(noise), steps)
    target = chunk_of(cond[:, 0])
    distance = torch.stack([(chunk - sign * target).square().mean(dim=(1, 2)) for sign in (1, -1)])
    plus = (distance[0] < distance[1]).float().mean()
    return [round(float(distance.amin(dim=0).mean().sqrt()), 4), round(float(plus), 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1_500)
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        began = time.monotonic()
        head = trained_head(arguments.updates, seed)
        row: dict[str, object] = {"seed": seed, "train_s": round(time.monotonic() - began, 1)}
        for name, spacing in SPACINGS.items():
            row[name] = {steps: figures(head, spacing, steps, seed) for steps in (2, 5, 10, 20)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
