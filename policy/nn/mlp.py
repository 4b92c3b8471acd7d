"""A multilayer perceptron whose hidden layers are normalised."""

from torch import nn

from vla.policy.nn.layers import Float32Linear, RMSNorm


def mlp(inputs: int, width: int, layers: int, outputs: int) -> nn.Sequential:
    """Build hidden layers, each normalised, and a last one in float32."""
    hidden: list[nn.Module] = []
    for before in [inputs, *[width] * (layers - 1)]:
        hidden += [nn.Linear(before, width), nn.SiLU(), RMSNorm(width)]
    return nn.Sequential(*hidden, Float32Linear(width, outputs))
