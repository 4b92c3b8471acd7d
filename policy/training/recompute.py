"""Gradient checkpointing (arXiv 1604.06174): activations are computed again for the gradient, not kept.

Of every attention and MLP of a stack, of every trunk as a whole, and of every layer of a model of
transformers, only what goes in is kept. The losses and the gradients are the same numbers; an update costs
one forward pass more.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vla.policy.nn.causal import CausalAttention
from vla.policy.nn.layers import Attention, SwiGLU
from vla.policy.pretrained.smolvla_layers import GatedMLP
from vla.policy.trunks.trunk import Trunk

PARTS = (Attention, SwiGLU, CausalAttention, GatedMLP, Trunk)


def recompute_activations(model: nn.Module) -> None:
    """Let the parts of a model compute their activations again; its weights and their names stay."""
    for part in parts_of(model):
        part.forward = _recomputed(part.forward)


def parts_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the largest modules that are `PARTS`, or layers of transformers."""
    if isinstance(model, PARTS) or _is_layer_of_transformers(model):
        yield model
    else:
        for child in model.children():
            yield from parts_of(child)


def _is_layer_of_transformers(module: nn.Module) -> bool:
    """Tell by name: importing the class takes seconds."""
    return any(base.__name__ == "GradientCheckpointingLayer" for base in type(module).__mro__)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(*inputs: Any, **named: Any) -> Any:
        # Without gradients nothing is kept anyhow; the derivative of MeanFlow goes through here as duals.
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        return checkpoint(forward, *inputs, use_reentrant=False, **named)

    return call
