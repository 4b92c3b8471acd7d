"""Which windows a step trains on, a pure function of (seed, step), and loading them ahead of it.

Nothing has to be saved to continue a run exactly: step 1234 draws the same windows in whatever process it
runs; so it is with noise and times, see `vla.policy.random`.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vla.base.prefetch import prefetch
from vla.policy.batch import Batch
from vla.policy.random import generator_for
from vla.policy.training.permutation import mixed, permuted

BATCHES_AHEAD = 2
ORDER = 1
"""Sets the keys of orders apart from those of anything else that is drawn in this way."""


@runtime_checkable
class Sampler(Protocol):
    """Draws the windows of a step."""

    def draw(self, step: int) -> Int64[Tensor, "B"]:
        """Return the current frames of one step's windows."""


class EpochSampler:
    """Draw batches without replacement: a new permutation of all windows each epoch.

    Args:
        windows: current frames to draw from.
        batch_size: rows of a batch; a last part of an epoch that would not fill one is left out.
        seed: of the permutations.
    """

    def __init__(self, windows: Int64[Tensor, "windows"], batch_size: int, seed: int) -> None:
        self._windows, self._batch_size, self._seed = windows, batch_size, seed
        self._steps_per_epoch = max(1, len(windows) // batch_size)
        self._epoch, self._order = -1, windows

    def draw(self, step: int) -> Int64[Tensor, "B"]:
        """Return the batch of one step."""
        epoch, position = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            generator = generator_for(self._seed, "order", epoch, self._windows.device)
            order = torch.randperm(len(self._windows), generator=generator, device=self._windows.device)
            # Fewer windows than a batch: repeat them, so that the batch size holds.
            repeats = -(-self._batch_size // len(order))
            self._epoch, self._order = epoch, self._windows[order.repeat(repeats)]
        return self._order[position * self._batch_size : (position + 1) * self._batch_size]


@runtime_checkable
class Numbered(Protocol):
    """Current frames of windows, by number; see `vla.policy.windows.Numbering`."""

    def __len__(self) -> int:
        """Return how many windows there are."""

    def frames(self, numbers: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
        """Return the current frames of some."""


class MixtureSampler:
    """Draw batches from several caches by weight, without replacement in each, and without a list of all.

    Row after row, the caches take turns in a fixed pattern of `sum(shares)` rows, evenly spread. The rows of
    a cache visit all its windows in a random order, then in another one.

    Args:
        windows: of each cache, to draw from.
        shares: how many rows of each pattern are of each cache.
        batch_size: rows of a batch.
        seed: of the orders.
    """

    def __init__(
        self, windows: Sequence[Numbered], shares: Sequence[int], batch_size: int, seed: int
    ) -> None:
        self._windows, self._batch_size, self._seed = tuple(windows), batch_size, seed
        self._sizes = np.array([len(one) for one in windows])
        self._shares = np.array(shares)
        turns = [(np.arange(share) + 0.5) / share for share in shares]
        pattern = np.argsort(np.concatenate(turns), kind="stable")
        self._cache = np.repeat(np.arange(len(shares)), shares)[pattern]
        self._turn = np.concatenate([np.arange(share) for share in shares])[pattern]

    def draw(self, step: int) -> Int64[Tensor, "B"]:
        """Return the batch of one step, on the CPU."""
        rows = step * self._batch_size + np.arange(self._batch_size)
        cycle, place = np.divmod(rows, len(self._cache))
        cache = self._cache[place]
        number = (
            cycle * self._shares[cache] + self._turn[place]
        )  # of this cache's rows, from the first step on
        epoch, place = np.divmod(number, self._sizes[cache])
        window = permuted(place, self._sizes[cache], mixed(self._seed, ORDER, cache, epoch))
        frames = torch.empty(self._batch_size, dtype=torch.int64)
        for which, windows in enumerate(self._windows):
            here = torch.from_numpy(cache == which)
            frames[here] = windows.frames(torch.from_numpy(window)[here])
        return frames


def load_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches in order, ready to be used on the caller's stream; a thread loads a few ahead.

    On a GPU the thread has a CUDA stream of its own too. On the default stream, where the training step is
    queued, each number that it reads back from the device would wait for that step to end.

    Args:
        batches: cuts one after the other; advanced in the thread.
        device: where they are.
    """
    if device.type != "cuda":
        yield from prefetch(batches, BATCHES_AHEAD)
        return
    for batch, loaded in prefetch(_on_own_stream(batches, device), BATCHES_AHEAD):
        stream = torch.cuda.current_stream(device)
        stream.wait_event(loaded)
        for tensor in batch.tensors():
            tensor.record_stream(stream)  # or its memory could be given to a later batch too early
        yield batch


def _on_own_stream(
    batches: Iterator[Batch], device: torch.device
) -> Iterator[tuple[Batch, torch.cuda.Event]]:
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.default_stream(device))  # which has moved the tables of windows
    with torch.cuda.stream(stream):
        for batch in batches:
            yield batch, stream.record_event()
