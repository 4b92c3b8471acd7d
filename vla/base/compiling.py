"""Compile a module in place with torch.compile, or leave it as it is.

off      eager: starts at once, the same on every machine
on       torch.compile: fused kernels; the first call of each shape takes tens of seconds
graphs   the same, replayed as CUDA graphs: for small batches, where launching kernels takes longer than
         running them; on a CPU the same as `on`
"""

from typing import Literal

import torch
from torch import nn

from vla.base.errors import ConfigError
from vla.base.progress import say

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


def advise_compiling(how: Compile, device: torch.device) -> None:
    """Say of a training what is likely to be worth switching on.

    Args:
        how: it is compiled now.
        device: it runs on.
    """
    if device.type == "cuda" and how == "off":
        say(
            "the loss is not compiled: most of a step on a GPU is then the launching of kernels. For a long "
            "training try --set train.compile=graphs (docs/scale.md); it compiles for minutes first"
        )


def require_graphs_in_threads(how: Compile, key: str) -> None:
    """Check that what is compiled so can run in a thread that Python starts.

    Args:
        how: off, on or graphs.
        key: the setting that says so.

    Raises:
        ConfigError: it is CUDA graphs, and torch is older than 2.13, the first that makes them there.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if how == "graphs" and version < (2, 13):
        raise ConfigError(
            f"{key} = graphs needs torch 2.13 or later here, this is {torch.__version__}; --set {key}=on"
        )
