"""Forward-mode derivatives by dual numbers: a value and its tangent go through the network together.

    x + e dx        e^2 = 0        f(x + e dx) = f(x) + e f'(x) dx

Both lie in one tensor, [2, *shape], the value first. What is linear acts on both alike, so a layer is one
matrix product, of twice the rows; what is not linear has a rule here. A layer is written once, for
tensors and for duals: it counts dimensions from the end and uses only what this file has. Sums and
products are methods, `a.mul(b)`: torch.compile does not follow the operators of a class beside a tensor.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Dual:
    """A value and its tangent, with the operations of a tensor that layers use.

    A tensor beside a dual is a constant: its tangent is zero.

    Args:
        both: [2, *shape], value and tangent.
    """

    def __init__(self, both: Tensor) -> None:
        self.both = both

    @classmethod
    def of(cls, value: Tensor, tangent: Tensor) -> "Dual":
        """Put a value and a tangent of the same shape together."""
        return cls(torch.stack([value, tangent]))

    @property
    def value(self) -> Tensor:
        return self.both[0]

    @property
    def tangent(self) -> Tensor:
        return self.both[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.both.dtype

    def to(self, dtype: torch.dtype) -> "Dual":
        return Dual(self.both.to(dtype))

    def transpose(self, dim0: int, dim1: int) -> "Dual":
        return Dual(self.both.transpose(dim0, dim1))

    def unflatten(self, dim: int, sizes: tuple[int, ...]) -> "Dual":
        return Dual(self.both.unflatten(dim, sizes))

    def flatten(self, start_dim: int) -> "Dual":
        return Dual(self.both.flatten(start_dim))

    def unbind(self, dim: int) -> tuple["Dual", ...]:
        return tuple(Dual(part) for part in self.both.unbind(dim))

    def chunk(self, chunks: int, dim: int) -> tuple["Dual", ...]:
        return tuple(Dual(part) for part in self.both.chunk(chunks, dim))

    def __getitem__(self, index: Any) -> "Dual":
        """Index the last dimensions: `x[..., 0]`."""
        return Dual(self.both[index])

    def add(self, other: "Dual | Tensor") -> "Dual":
        if isinstance(other, Dual):
            return Dual(self.both + other.both)
        return Dual.of(self.value + other, self.tangent)

    def sub(self, other: "Dual") -> "Dual":
        return Dual(self.both - other.both)

    def mul(self, other: "Dual | Tensor | float") -> "Dual":
        if isinstance(other, Dual):
            return Dual.of(
                self.value * other.value,
                torch.addcmul(self.tangent * other.value, self.value, other.tangent),
            )
        return Dual(self.both * other)

    def matmul(self, other: "Dual | Tensor") -> "Dual":
        if isinstance(other, Dual):
            tangent = self.tangent @ other.value + self.value @ other.tangent
            return Dual.of(self.value @ other.value, tangent)
        return Dual(self.both @ other)


Number = Tensor | Dual
"""What a layer takes. Rules return what they are given, a tensor or a dual, which mypy is not told."""


def elementwise(x: Number, function: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function of single numbers, whose derivative is `slope`."""
    if isinstance(x, Dual):
        return Dual.of(function(x.value), slope(x.value) * x.tangent)
    return function(x)


def cos(x: Number) -> Any:
    return elementwise(x, torch.cos, lambda value: -value.sin())


def sin(x: Number) -> Any:
    return elementwise(x, torch.sin, torch.cos)


def silu(x: Number) -> Any:
    """Return x sigmoid(x)."""
    if isinstance(x, Dual):
        gate = x.value.sigmoid()
        value = x.value * gate
        return Dual.of(value, torch.addcmul(gate, value, 1 - gate) * x.tangent)
    return functional.silu(x)


def softmax(x: Number) -> Any:
    """Normalise along the last dimension."""
    if isinstance(x, Dual):
        share = x.value.softmax(dim=-1)
        change = share * x.tangent
        return Dual.of(share, change - share * change.sum(dim=-1, keepdim=True))
    return x.softmax(dim=-1)


def linear(x: Number, weight: Tensor, bias: Tensor | None = None) -> Any:
    """Multiply the last dimension with a weight matrix [out, in] that is constant."""
    if isinstance(x, Dual):
        product = Dual(functional.linear(x.both, weight))
        return product if bias is None else product.add(bias)
    return functional.linear(x, weight, bias)


def inverse_rms(x: Number, eps: float) -> Any:
    """Return the inverse of the root mean square of the last dimension, which stays as 1."""
    if isinstance(x, Dual):
        inverse = inverse_rms(x.value, eps)
        return Dual.of(inverse, -(inverse**3) * (x.value * x.tangent).mean(dim=-1, keepdim=True))
    return torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)


def rms_norm(x: Number, weight: Tensor, eps: float) -> Any:
    """Divide by the root mean square of the last dimension and multiply with a gain, in float32 at least."""
    if isinstance(x, Dual):
        value, change = x.both * inverse_rms(x.value, eps)
        tangent = torch.addcmul(change, value, (value * change).mean(dim=-1, keepdim=True), value=-1)
        return Dual(torch.stack([value, tangent]) * weight)
    values = x.to(torch.promote_types(x.dtype, torch.float32))  # of one type with the gain: torch warns else
    return functional.rms_norm(values, x.shape[-1:], weight, eps).to(x.dtype)


def softmax_of(scores: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return the softmax over a list, as a list, and the logarithm of its sum of exponentials.

    Element by element: compiled, it melts into the kernel that reads the weights. A stack of all scores and a
    softmax over that made 185 kernels of 6 mixes, forward and backward, where this makes 99.
    """
    if isinstance(scores[0], Dual):
        shares, together = softmax_of([score.both[0] for score in scores])
        change = sum_of_products([score.both[1] for score in scores], shares)
        weights = [
            Dual.of(share, share * (score.both[1] - change))
            for share, score in zip(shares, scores, strict=True)
        ]
        return weights, Dual.of(together, change)
    largest = functools.reduce(torch.maximum, [score.detach() for score in scores])
    powers = [(score - largest).exp() for score in scores]
    total = functools.reduce(torch.add, powers)
    return [power / total for power in powers], largest + total.log()


def sum_of_products(factors: Sequence[Any], others: Sequence[Any]) -> Any:
    """Add up products of pairs, without a copy of all factors side by side."""
    if isinstance(factors[0], Dual):
        values, tangents = zip(*[factor.both.unbind(0) for factor in factors], strict=True)
        other_values, other_tangents = zip(*[other.both.unbind(0) for other in others], strict=True)
        tangent = sum_of_products([*tangents, *values], [*other_values, *other_tangents])
        return Dual.of(sum_of_products(values, other_values), tangent)
    total = factors[0] * others[0]
    for factor, other in zip(factors[1:], others[1:], strict=True):
        total = torch.addcmul(total, factor, other)
    return total


def cat(parts: Sequence[Any], dim: int) -> Any:
    """Concatenate along a dimension that is counted from the end: a dual if one of the parts is one."""
    if any(isinstance(part, Dual) for part in parts):
        duals = [part if isinstance(part, Dual) else Dual.of(part, torch.zeros_like(part)) for part in parts]
        return Dual(torch.cat([dual.both for dual in duals], dim=dim))
    return torch.cat(list(parts), dim=dim)
