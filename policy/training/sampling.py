"""Which windows a step trains on, and its random streams: pure functions of (seed, step).

Nothing has to be saved to continue a run exactly: step 1234 draws the same windows, noise and times in
whatever process it runs.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

STREAMS = {"variant": 0, "order": 1, "loss": 2, "validation": 3}


def generator_for(seed: int, stream: str, index: int, device: torch.device) -> torch.Generator:
    """Return a fresh generator for one purpose and step; streams are independent of each other."""
    state = np.random.SeedSequence([seed, STREAMS[stream], index]).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state[0]))


class RowRandom:
    """Random numbers for the rows of a batch that several processes may share.

    Every process draws the whole batch's numbers and keeps every `world`-th row from `rank` on: what a
    row sees does not depend on how many processes there are. The order of rows is kept, which
    matters to heads that treat the first rows differently.

    Args:
        generator: on the device where numbers are wanted; None uses torch's default on the CPU.
        rank: this process.
        world: number of processes.
    """

    def __init__(self, generator: torch.Generator | None = None, rank: int = 0, world: int = 1) -> None:
        self._generator, self._rank, self._world = generator, rank, world
        self.device = generator.device if generator else torch.device("cpu")

    def normal(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        """Draw standard normal numbers [rows, *shape]."""
        return self._mine(torch.randn((rows * self._world, *shape), **self._where()))

    def uniform(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        """Draw numbers in [0, 1), [rows, *shape]."""
        return self._mine(torch.rand((rows * self._world, *shape), **self._where()))

    def integers(self, high: int, rows: int, *shape: int) -> Int64[Tensor, "rows ..."]:
        """Draw whole numbers below `high`, [rows, *shape]."""
        return self._mine(torch.randint(high, (rows * self._world, *shape), **self._where()))

    def _mine(self, numbers: Tensor) -> Tensor:
        return numbers[self._rank :: self._world]

    def _where(self) -> dict[str, Any]:
        return {"generator": self._generator, "device": self.device}


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
