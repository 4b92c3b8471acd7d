"""Weights of a ResNet from a file in torchvision's format, such as `resnet18-f37072fd.pth`.

Batch normalisation   GroupNorm cannot have its running statistics: it takes mean and variance of each image.
                      So convolutions are loaded, a GroupNorm starts at the BatchNorm's weight and bias, and
                      the statistics are left out. The network does not compute what the checkpoint did; it
                      starts from its filters. With `norm = batch` the statistics are loaded too, are frozen,
                      and the maps are those of the checkpoint.
Classifier            left out.
"""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vla.base.errors import ConfigError
from vla.policy.nn.resnet import ResNet

LEFT_OUT = ("num_batches_tracked", "running_mean", "running_var")


def load_weights(network: ResNet, path: Path) -> None:
    """Start a network from a file: safetensors, or a state dict that torch reads without running code.

    Raises:
        ConfigError: the file is missing, cannot be read, or is of another network.
    """
    found = {_our_name(name): tensor for name, tensor in _read(path).items()}
    due = network.state_dict()
    given = {name: found[name] for name in due if name in found}
    for name, tensor in due.items():
        if name not in found or found[name].shape != tensor.shape:
            there = list(found[name].shape) if name in found else "missing"
            raise ConfigError(
                f"{path} is not of this ResNet: '{name}' is {there}, and should be {list(tensor.shape)}; "
                "layers, width and the file must agree: torchvision's have width 64"
            )
    known = [*due, *(name for name in found if name.startswith("fc.") or name.endswith(LEFT_OUT))]
    if odd := sorted(found.keys() - set(known)):
        raise ConfigError(f"{path} is not of this ResNet: it has '{odd[0]}' besides; is it of more layers?")
    network.load_state_dict(given)


def _our_name(name: str) -> str:
    return name.replace("bn", "norm")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"there are no weights at {path}; give a ResNet's file in torchvision's format")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{path} cannot be read as safetensors or as a plain state dict: {reason}"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"{path} holds no state dict; save `model.state_dict()`, tensors by name")
    return found
