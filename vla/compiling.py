"""Compile a module in place with torch.compile, or leave it as it is.

off      eager: starts at once, the same on every machine
on       torch.compile: fused kernels; the first call of each shape takes tens of seconds
graphs   the same, replayed as CUDA graphs: for small batches, where launching kernels takes longer than
         running them; on a CPU the same as `on`
"""

from typing import Literal

from torch import nn

Compile = Literal["off", "on", "graphs"]


def compile_module(module: nn.Module, how: Compile, backend: str = "inductor") -> None:
    """Compile a module's forward pass; its weights, their names and their copies stay as they are.

    Args:
        module: called with tensors of few different shapes: each is compiled by itself.
        how: off, on or graphs.
        backend: torch's name of the compiler.
    """
    if how == "off":
        return
    # Only inductor knows modes.
    mode = "reduce-overhead" if how == "graphs" and backend == "inductor" else None
    module.compile(backend=backend, mode=mode, dynamic=False)
