"""Loss and action error on held-out episodes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vla.policy.agents.policy import Policy
from vla.policy.random import RowRandom, generator_for
from vla.policy.training.supply import HeldOut
from vla.policy.windows import Windows

MAX_WINDOWS = 512
MAX_BYTES = 256 << 20
"""Of what is observed in one pass."""


@contextmanager
def evaluating(policy: Policy) -> Iterator[None]:
    """Put a policy into evaluation mode for a while: no dropout, statistics of norms as they are."""
    was_training = policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(was_training)


def validate_all(
    policy: Policy, held_out: Sequence[HeldOut], seed: int, *, hold: bool = False
) -> dict[str, float]:
    """Compare a policy with the held-out demonstrations of each cache; see `validate`.

    Returns:
        The figures of all, by weight; of several caches those of each as well, such as `NAME_loss`.
    """
    found = [validate(policy, one.windows, one.current, seed, hold=hold) for one in held_out]
    if len(found) == 1:
        return found[0]
    weights = [one.weight for one in held_out]
    squares = [figures["action_rmse"] ** 2 for figures in found]
    return {
        "loss": float(np.average([figures["loss"] for figures in found], weights=weights)),
        "action_rmse": float(np.sqrt(np.average(squares, weights=weights))),
        **{
            f"{one.cache}_{name}": value
            for one, figures in zip(held_out, found, strict=True)
            for name, value in figures.items()
        },
    }


@torch.no_grad()
def validate(
    policy: Policy, windows: Windows, current: Int64[Tensor, "windows"], seed: int, *, hold: bool = False
) -> dict[str, float]:
    """Compare a policy with held-out demonstrations; the same windows and noise every time.

    Args:
        policy: usually the one with averaged weights.
        windows: of the cache.
        current: current frames of the held-out windows; at most 512 of them, evenly spread, are used.
        seed: of noise and times.
        hold: the last action is held past an episode's end; see `Batch.held`.

    Returns:
        `loss`, and `action_rmse`: of samples against the demonstration, in standard
        deviations of each action dimension.
    """
    chosen = current[:: -(-len(current) // MAX_WINDOWS)]
    parts = min(len(chosen), _passes(policy, len(chosen)))
    rows = len(chosen) // parts  # equal parts, which see the random numbers of one
    losses, errors = [], []
    with evaluating(policy):
        for part in range(parts):
            batch = windows.batch(chosen[part::parts][:rows])
            batch = batch.held() if hold else batch
            random = RowRandom(generator_for(seed, "validation", 0, current.device), part, parts)
            loss, _ = policy.loss(batch, policy.draw(batch, random))
            losses.append(float(loss))
            errors.append(float(policy.action_error(batch, random)))
    return {"loss": float(np.mean(losses)), "action_rmse": float(np.sqrt(np.mean(np.square(errors))))}


def _passes(policy: Policy, count: int) -> int:
    """Return in how many passes some windows are compared: images would not fit into memory at once."""
    of_one = sum(int(np.prod(stream.shape)) * stream.numpy_dtype.itemsize for stream in policy.observes)
    return -(-count * policy.horizons.obs_horizon * of_one // MAX_BYTES)
