"""LoRA (arXiv 2106.09685) on a language model, by peft: W x + (alpha / r) B A x, with A and B trained.

B begins as zeros, so the first answer is the untouched model's.
"""

from typing import Any, Literal

import torch
from torch import nn

from vla.base.errors import ConfigError, MissingPackageError
from vla.base.strict import Positive, StrictModel, Width


class LoraSettings(StrictModel):
    """Low-rank adapters."""

    r: Width = 16
    """Rank of each adapter."""
    alpha: Positive = 32.0
    """An adapter counts alpha / r."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Linear layers that get one, by the end of their names, such as ["q_proj", "v_proj"]."""


def add_adapters(model: Any, settings: LoraSettings) -> None:
    """Freeze a model and put trainable adapters into its linear layers, in place.

    Args:
        model: of transformers.
        settings: how large, and where.

    Raises:
        MissingPackageError: peft is not installed.
        ConfigError: a target names no layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingPackageError("peft", "lora") from error
    linear = {
        name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    targets: Any = settings.targets
    if targets != "all-linear":
        if unknown := [name for name in targets if name not in linear]:
            raise ConfigError(
                f"policy.fusion.lora.targets names '{unknown[0]}', which is no linear layer of this model; "
                f"those are {', '.join(sorted(linear))}"
            )
        targets = list(targets)
    config = LoraConfig(r=settings.r, lora_alpha=settings.alpha, target_modules=targets)
    inject_adapter_in_model(config, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # In bfloat16 an update of 1e-4 of a weight is rounded away.
            parameter.data = parameter.data.to(torch.float32)
