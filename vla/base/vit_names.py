"""The names of a ViT's tensors, which transformers 4 and 5 spell differently.

    transformers 4   encoder.layer.0.attention.attention.query.weight   what public checkpoints have
    transformers 5   layers.0.attention.q_proj.weight                   what is hashed and saved here

A module of either version is read and filled by the second spelling.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

LAYER = re.compile(r"(.*?)(?:encoder\.layer|layers)\.(\d+)\.(.+)\.(weight|bias)")
PARTS = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def new_name(name: str) -> str:
    """Spell a tensor's name as transformers 5 does; others stay as they are.

    >>> new_name("encoder.encoder.layer.3.output.dense.bias")
    'encoder.layers.3.mlp.fc2.bias'
    """
    found = LAYER.fullmatch(name)
    if found is None:
        return name
    before, number, part, kind = found.groups()
    return f"{before}layers.{number}.{PARTS.get(part, part)}.{kind}"


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's tensors by their names as transformers 5 spells them."""
    return {new_name(name): tensor for name, tensor in module.state_dict().items()}


def load_named(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill a module with tensors that `named_tensors` returned, whatever version of transformers made it.

    Raises:
        KeyError: a tensor is missing.
        RuntimeError: one has another shape.
    """
    module.load_state_dict({name: tensors[new_name(name)] for name in module.state_dict()})
