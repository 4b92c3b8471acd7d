"""Which windows a step trains on, a pure function of (seed, step), and loading them ahead of it.

Nothing has to be saved to continue a run exactly: step 1234 draws the same windows in whatever process it
runs; so it is with noise and times, see `vla.policy.random`.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from vla.base.prefetch import prefetch
from vla.policy.batch import Batch
from vla.policy.random import generator_for

BATCHES_AHEAD = 2


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
