"""Run by tests/vla/test_compiling.py in a process of its own: torch.compile cannot see through shape checks.

    python compiled_loss.py FOLDER [BACKEND]

Prints, for each kind of residuals, how far the compiled loss and gradient are from the eager ones, and
the size of du/dt.
"""

import json
import sys
from pathlib import Path
from typing import Literal

import torch
from fakes import fake_spec, write_cache
from torch import nn

from vla.cache.reader import FeatureCache
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.random import RowRandom
from vla.policy.windows import Windows


def main(folder: Path, backend: str = "aot_eager") -> None:
    cache = write_cache(folder, fake_spec(lengths=(12, 9)))
    kinds: list[Literal["attnres", "plain"]] = ["attnres", "plain"]
    print(json.dumps({residual: differences(cache, residual, backend) for residual in kinds}))


def differences(cache: FeatureCache, residual: Literal["attnres", "plain"], backend: str) -> dict[str, float]:
    """Compare the loss of one agent, eager and compiled."""
    torch.manual_seed(0)
    small = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2, residual=residual)
    agent = VLAAgent.for_cache(small, cache.metadata)
    windows = Windows(cache, agent.horizons, agent.observes, device=torch.device("cpu"), resident=True)
    batch = windows.batch(torch.arange(8))
    for name, parameter in agent.named_parameters():
        if "outputs" in name:  # zero at first, which would hide the derivative
            nn.init.normal_(parameter, std=0.1)
    draws = agent.draw(batch, RowRandom(torch.Generator().manual_seed(1)))
    losses, gradients = [], []
    compiled = torch.compile(agent.loss, backend=backend, fullgraph=True, dynamic=False)
    for compute in (agent.loss, compiled):
        agent.zero_grad(set_to_none=True)
        loss, parts = compute(batch, draws)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in agent.parameters() if p.grad is not None]))
    return {
        "loss": abs(losses[1] / losses[0] - 1),
        "gradient": float((gradients[1] - gradients[0]).norm() / gradients[0].norm()),
        "du_dt_rms": float(parts["du_dt_rms"]),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
