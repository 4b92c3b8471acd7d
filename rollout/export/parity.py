"""Does what was exported give the policy's actions? Asked with random inputs before anything is written."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vla.base.errors import VlaError
from vla.rollout.export.graph import PolicyGraph

MAX_DIFFERENCE = 1e-2
"""In standard deviations of an action: more is another function, not another order of sums."""


def largest_difference(
    graph: PolicyGraph,
    answer: Callable[[tuple[Tensor, ...]], Tensor],
    image_size: tuple[int, int],
    checks: int,
) -> tuple[float, float]:
    """Run random inputs of different batch sizes through a graph and what was made of it.

    Args:
        graph: the policy.
        answer: what was made of it.
        image_size: (height, width) [pixel].
        checks: inputs.

    Returns:
        The largest difference of an action: in the robot's units, and in standard deviations.
    """
    largest, largest_std = 0.0, 0.0
    spread = graph.policy.action_form.spread(graph.policy.action_standardize.std)
    for check in range(checks):
        inputs = graph.random_inputs(batch=1 + check % 2, seed=1 + check, image_size=image_size)
        with torch.no_grad():
            expected = graph(*inputs)
        difference = (answer(inputs) - expected).abs()
        largest = max(largest, float(difference.max()))
        largest_std = max(largest_std, float((difference / spread).max()))
    return largest, largest_std


def require_parity(what: str, relative: float, path: Path) -> None:
    """Check the difference, in standard deviations.

    Raises:
        VlaError: it is more than rounding.
    """
    if not relative <= MAX_DIFFERENCE:
        raise VlaError(
            f"{what}'s actions differ from PyTorch's by {relative:.2g} standard deviations, at most "
            f"{MAX_DIFFERENCE:g} is rounding; {path} was not written"
        )
