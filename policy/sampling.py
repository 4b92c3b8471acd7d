"""Which windows a step trains on, and its random streams: pure functions of (seed, step).

Nothing has to be saved to continue a run exactly: step 1234 draws the same windows, noise and times in
whatever process it runs.
"""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

STREAMS = {"init": 0, "order": 1, "loss": 2, "validation": 3}


def generator_for(seed: int, stream: str, index: int, device: torch.device) -> torch.Generator:
    """Return a fresh generator for one purpose and step; streams are independent of each other."""
    state = np.random.SeedSequence([seed, STREAMS[stream], index]).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state[0]))


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
