"""Run by tests/vla/test_compiling.py in a process of its own: torch.compile cannot see through shape checks.

    python compiled_loss.py FOLDER [BACKEND]

Prints how far the compiled loss and gradient are from the eager ones, the size of du/dt, and the
normalisations that reach the compiler as one operator: where that is one kernel, its forward-mode derivative
does not compile.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from fakes import fake_spec, write_cache
from torch import nn
from torch._dynamo import lookup_backend

from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.random import RowRandom
from vla.policy.windows import Windows


def main(folder: Path, backend: str = "aot_eager") -> None:
    cache = write_cache(folder, fake_spec(lengths=(12, 9)))
    torch.manual_seed(0)
    small = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)
    agent = VLAAgent.for_cache(small, cache.metadata)
    windows = Windows(cache, agent.horizons, agent.observes, device=torch.device("cpu"), resident=True)
    batch = windows.batch(torch.arange(8))
    for name, parameter in agent.named_parameters():
        if "outputs" in name:  # zero at first, which would hide the derivative
            nn.init.normal_(parameter, std=0.1)
    draws = agent.draw(batch, RowRandom(torch.Generator().manual_seed(1)))
    losses, gradients = [], []
    operators: set[str] = set()

    def compiler(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        operators.update(str(node.target) for node in graph.graph.nodes)
        return lookup_backend(backend)(graph, inputs)

    compiled = torch.compile(agent.loss, backend=compiler, fullgraph=True, dynamic=False)
    for compute in (agent.loss, compiled):
        agent.zero_grad(set_to_none=True)
        loss, parts = compute(batch, draws)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in agent.parameters() if p.grad is not None]))
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    print(
        json.dumps(
            {
                "loss": abs(losses[1] / losses[0] - 1),
                "gradient": float(difference),
                "du_dt_rms": float(parts["du_dt_rms"]),
                "norms": sorted(name for name in operators if re.search("(rms|layer|group)_norm", name)),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
