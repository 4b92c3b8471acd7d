"""Compile a module in place with torch.compile, or leave it as it is.

off      eager: starts at once, the same on every machine
on       torch.compile: fused kernels; the first call of each shape takes tens of seconds
graphs   the same, replayed as CUDA graphs: for small batches, where launching kernels takes longer than
         running them; on a CPU the same as `on`
auto     off on a CPU; on a GPU graphs where they pay for the minutes that compiling takes: in long trainings,
         and where a policy is served
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from vla.base.errors import ConfigError
from vla.base.progress import say

Compile = Literal["off", "on", "graphs"]
AutoCompile = Literal["auto", "off", "on", "graphs"]
LONG_TRAINING = 5_000
"""Updates. Uncompiled, one of the full-size policy is some 13,000 launches of a few microseconds each; so
many updates save several times the minutes of compiling."""


def compile_module(
    module: nn.Module,
    how: Compile,
    backend: str | Callable[..., Any] = "inductor",
    *,
    else_eager: bool = False,
) -> None:
    """Compile a module's forward pass; its weights, their names and their copies stay as they are.

    Args:
        module: called with tensors of few different shapes: each is compiled by itself.
        how: off, on or graphs.
        backend: torch's name of the compiler, or one.
        else_eager: where the compiler fails, say so and go on uncompiled: nobody has asked for it.
    """
    if how == "off":
        return
    # Only inductor knows modes.
    mode = "reduce-overhead" if how == "graphs" and backend == "inductor" else None
    module.compile(backend=backend, mode=mode, dynamic=False)
    if else_eager:
        module._compiled_call_impl = _or_eager(module)


def _or_eager(module: nn.Module) -> Callable[..., Any]:
    """Call what is compiled; from the first failure of the compiler on, the module itself."""
    from torch._dynamo.exc import TorchDynamoException  # seconds, for those who compile alone

    compiled = module._compiled_call_impl
    assert compiled is not None

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return compiled(*arguments, **named)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())
            say(f"torch {torch.__version__} cannot compile this ({reason:.200}); it goes on uncompiled")
            module._compiled_call_impl = None
            return module(*arguments, **named)

    return call


def for_training(asked: AutoCompile, device: torch.device, steps: int) -> Compile:
    """Decide how a training is compiled.

    Args:
        asked: auto, or how.
        device: it runs on.
        steps: updates in all, those of a resumed run too: it goes on as it began.
    """
    if asked != "auto":
        return asked
    return "graphs" if device.type == "cuda" and steps >= LONG_TRAINING else "off"


def for_serving(asked: AutoCompile, device: torch.device) -> Compile:
    """Decide how a policy is compiled that decides for whoever asks, in a thread of its own.

    Args:
        asked: auto, or how.
        device: it runs on.
    """
    if asked != "auto":
        return asked
    if device.type != "cuda":
        return "off"
    return "graphs" if _makes_graphs_in_threads() else "on"


def say_compiling(asked: AutoCompile, how: Compile, key: str) -> None:
    """Say what `auto` has chosen, where it is not what a user expects who has not asked.

    Args:
        asked: auto, or how.
        how: it is compiled.
        key: the setting, such as train.compile.
    """
    if asked == "auto" and how != "off":
        graphs = " with CUDA graphs" if how == "graphs" else ""
        say(f"compiled{graphs}: that takes minutes first, then saves more; to do without: --set {key}=off")


def require_graphs_in_threads(how: AutoCompile, key: str) -> None:
    """Check that what is compiled so can run in a thread that Python starts.

    Args:
        how: as it is asked for; auto never needs what is not there.
        key: the setting that says so.

    Raises:
        ConfigError: it is CUDA graphs, and torch is older than 2.13, the first that makes them there.
    """
    if how == "graphs" and not _makes_graphs_in_threads():
        raise ConfigError(
            f"{key} = graphs needs torch 2.13 or later here, this is {torch.__version__}; --set {key}=on"
        )


def _makes_graphs_in_threads() -> bool:
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)
