"""Products in full float32, whatever `train.matmul_precision` says of the others."""

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


# A compiled function is compiled anew where the setting changes.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def products_are_rounded() -> bool:
    """Whether float32 products may be made of fewer bits, TF32 on a GPU."""
    return torch.get_float32_matmul_precision() != "highest"


# The setting is read when products run, not when compiled.
@torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
def in_full_precision(compute: Callable[..., Result], *arguments: object) -> Result:
    """Call a function with TF32 switched off; in a compiled function, what it calls is a graph of its own.

    Args:
        compute: makes products of float32.
        arguments: its positional ones.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return compute(*arguments)
    finally:
        torch.set_float32_matmul_precision(before)
