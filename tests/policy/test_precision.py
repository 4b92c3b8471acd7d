"""What stays in full precision: differences under TF32, and layers of states and actions under autocast."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from test_imf import draws_for, small_batch, small_head
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vla.policy.heads.imf import ImfHead
from vla.policy.nn.precision import in_full_precision

PRODUCTS = {
    torch.ops.aten.mm.default: (0, 1),
    torch.ops.aten.addmm.default: (1, 2),
    torch.ops.aten.bmm.default: (0, 1),
}


class Tf32(TorchDispatchMode):
    """Products as a GPU makes them: factors have 10 bits unless full precision is asked for."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args = list(args)
        if torch.get_float32_matmul_precision() != "highest":
            for place in PRODUCTS.get(function, ()):
                args[place] = ten_bits(args[place])
        return function(*args, **(kwargs or {}))


def ten_bits(x: Tensor) -> Tensor:
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


@pytest.fixture
def tf32() -> Iterator[None]:
    torch.set_float32_matmul_precision("high")
    with Tf32():  # type: ignore[no-untyped-call]
        yield
    torch.set_float32_matmul_precision("highest")


def du_dt(head: ImfHead) -> Tensor:
    cond, x, _ = small_batch()
    return head._du_dt(x, torch.linspace(0.2, 1, 8), torch.linspace(0, 0.5, 8), cond)


def test_a_finite_difference_is_made_of_full_products_where_others_are_tf32(tf32: None) -> None:
    head = small_head(derivative="finite_difference")
    rounded = du_dt(head)
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.equal(rounded, in_full_precision(du_dt, head))


def test_dual_numbers_lose_little_to_tf32(tf32: None) -> None:
    head = small_head()
    rounded, full = du_dt(head), in_full_precision(du_dt, head)
    assert 0 < (rounded - full).norm() / full.norm() < 0.01


def test_an_error_leaves_the_precision_as_it_was(tf32: None) -> None:
    with pytest.raises(ZeroDivisionError):
        in_full_precision(lambda: 1 // 0)
    assert torch.get_float32_matmul_precision() == "high"


def test_layers_that_carry_actions_are_float32_while_the_others_are_autocast_to_bfloat16() -> None:
    head, (cond, action, valid) = small_head(), small_batch()
    dtypes: dict[str, torch.dtype] = {}

    def note(name: str) -> None:
        def hook(_: nn.Module, __: object, result: Tensor) -> None:
            dtypes[name] = result.dtype

        head.network.get_submodule(name).register_forward_hook(hook)

    for name in ("action_in", "outputs.0", "outputs.1", "stack.sublayers.0.qkv"):
        note(name)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        u, v = head.network(action, cond, torch.ones(8), torch.ones(8))
    assert dtypes.pop("stack.sublayers.0.qkv") == torch.bfloat16
    assert set(dtypes.values()) == {torch.float32}
    loss, _ = head.compute_loss(cond, action, valid, draws_for(head, 3))
    assert u.dtype == v.dtype == loss.dtype == torch.float32
