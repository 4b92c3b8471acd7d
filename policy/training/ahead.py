"""Load batches a few steps ahead of training, in a thread of its own.

On a GPU the thread has a stream of its own too. On the default stream, where the training step is queued,
each number that it reads back from the device would wait for that step to end.
"""

from collections.abc import Iterator

import torch

from vla.base.prefetch import prefetch
from vla.policy.batch import Batch

BATCHES_AHEAD = 2


def load_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches in order, ready to be used on the caller's stream.

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
