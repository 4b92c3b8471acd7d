"""What do Attention Residuals cost, compiled? Kernels and bytes of a training step, counted, on any machine.

    python benchmarks/residual_cost.py             # 12 layers of 384, batch 256: half an hour on one core
    python benchmarks/residual_cost.py --layers 3

"attnres 4" is the block variant of 4 sublayers a block.

The loss and its gradient are compiled under bfloat16 autocast, as for a GPU, up to torch Inductor's schedule:
the list of fused kernels with the buffers that each reads and writes. No kernel is built or run. The
optimiser is not in it.

kernels     all that are launched; products among them are calls of a library
gigabytes   read and written by all kernels, had each buffer to come from memory once a kernel

On a GPU Inductor may fuse a little differently; the ratio is what to look at.
"""

import contextlib
import time
import types
from typing import Any
from unittest import mock

import torch
import torch._functorch.config
import torch._inductor.config
from measure import parser, rounded, save
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import ExternKernelSchedulerNode, NopKernelSchedulerNode

from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.heads.imf import ImfConfig, ImfHead
from vla.policy.random import RowRandom

ACTIONS = 16


class Counted(Exception):
    """Raised where the first compiled kernel would run."""


def head_for(variant: str, layers: int, width: int) -> ImfHead:
    """Build a head, full-size but for its depth and width."""
    residual, _, block = variant.partition(" ")
    sizes = {"n_layer": layers, "n_emb": width, "cond_dim": width, "residual_block": int(block or 1)}
    return ImfConfig().build(VLAAgentConfig.model_validate({**sizes, "residual": residual}), ACTIONS, 2)


def schedule(head: ImfHead, batch: int) -> dict[str, float]:
    """Count the kernels and bytes of the loss and its gradient."""
    counts = {"kernels": 0, "products": 0, "bytes": 0, "bytes_of_products": 0}

    def count(graph: GraphLowering) -> Any:
        graph._update_scheduler()
        for node in graph.scheduler.nodes:
            moved = node.get_read_write_buffers_sizes()
            if isinstance(node, NopKernelSchedulerNode):
                continue
            counts["kernels"] += 1
            counts["bytes"] += moved
            if isinstance(node, ExternKernelSchedulerNode):
                counts["products"] += 1
                counts["bytes_of_products"] += moved

        def call(_: Any) -> None:
            raise Counted

        return types.SimpleNamespace(call=call, __file__="", key="")

    random = RowRandom(torch.Generator().manual_seed(0))
    cond, action = random.normal(batch, 2, head.cond_dim), random.normal(batch, *head.shape)
    draws, valid = head.draw(batch, random), torch.ones(batch, *head.shape, dtype=torch.bool)
    torch.compiler.reset()
    compiled = torch.compile(head.compute_loss, fullgraph=True, dynamic=False)
    began = time.monotonic()
    with (
        contextlib.suppress(Counted),
        mock.patch.object(GraphLowering, "compile_to_module", count),
        torch._functorch.config.patch(force_non_lazy_backward_lowering=True, enable_autograd_cache=False),
        torch._inductor.config.patch(fx_graph_cache=False),
        torch.autocast("cpu", torch.bfloat16),
    ):
        compiled(cond, action, valid, draws)
    return {
        "kernels": counts["kernels"],
        "of_them_products": counts["products"],
        "gigabytes": rounded(counts["bytes"] / 1e9),
        "of_them_products_gigabytes": rounded(counts["bytes_of_products"] / 1e9),
        "seconds_to_schedule": rounded(time.monotonic() - began),
    }


def main() -> None:
    options = parser(__doc__, "residual_cost")
    options.add_argument("--layers", type=int, default=12)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--variants", nargs="+", default=["plain", "attnres", "attnres 4", "attnres 8"])
    arguments = options.parse_args()
    layers, width = (1, 32) if arguments.tiny else (arguments.layers, 384)
    figures: dict[str, Any] = {"layers": layers, "batch": arguments.batch}
    for variant in arguments.variants:
        counted = schedule(head_for(variant, layers, width), arguments.batch)
        plain = figures.setdefault(arguments.variants[0], counted)
        ratios = {f"{key}_over_plain": rounded(counted[key] / plain[key]) for key in ("kernels", "gigabytes")}
        figures[variant] = {**counted, **ratios}
        print(variant, figures[variant], flush=True)
    save(arguments, "residual_cost", figures, f"{layers} layers, counted on a CPU")


if __name__ == "__main__":
    main()
