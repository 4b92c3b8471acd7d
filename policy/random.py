"""Where random numbers come from: one protocol for training, rollouts and export.

RowRandom     training: each row's numbers are the same for any number of processes
SeededRows    live: each robot has a seed of its own, whoever else is in the batch
GivenNoise    export: the noise is an input of the graph
StillWhere    of any of these, without noise in actions that never move
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vla.base.errors import ConfigError

PURPOSES = {"variant": 0, "order": 1, "loss": 2, "validation": 3, "augment": 4}


@runtime_checkable
class Random(Protocol):
    """Draws numbers for the rows of a batch."""

    def normal(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        """Draw standard normal numbers [rows, *shape]."""

    def uniform(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        """Draw numbers in [0, 1), [rows, *shape]."""

    def integers(self, high: int, rows: int, *shape: int) -> Int64[Tensor, "rows ..."]:
        """Draw whole numbers below `high`, [rows, *shape]."""

    def places(self, rows: int) -> tuple[Int64[Tensor, "rows"], int]:
        """Return which rows of the whole batch these are, and how many that has.

        What depends on a row's place, such as "the first half", asks this: processes may share a batch.
        """


def generator_for(seed: int, purpose: str, index: int, device: torch.device) -> torch.Generator:
    """Return a fresh generator for one purpose and step; they are independent of each other.

    A pure function: nothing has to be saved to continue a run exactly.
    """
    state = np.random.SeedSequence([seed, PURPOSES[purpose], index]).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state[0]))


class RowRandom:
    """Random numbers for the rows of a batch that several processes may share.

    Every process draws the whole batch's numbers and keeps every `world`-th row from `rank` on: what a
    row sees does not depend on how many processes there are. The order of rows is kept, which
    matters to heads that treat the first rows differently.

    Args:
        generator: on the device where numbers are wanted; None uses torch's default.
        rank: this process.
        world: number of processes.
        device: of torch's default generator; the CPU if nothing is said.
    """

    def __init__(
        self,
        generator: torch.Generator | None = None,
        rank: int = 0,
        world: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self._generator, self._rank, self._world = generator, rank, world
        self.device = generator.device if generator else device or torch.device("cpu")

    def normal(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        return self._mine(torch.randn((rows * self._world, *shape), **self._where()))

    def uniform(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        return self._mine(torch.rand((rows * self._world, *shape), **self._where()))

    def integers(self, high: int, rows: int, *shape: int) -> Int64[Tensor, "rows ..."]:
        return self._mine(torch.randint(high, (rows * self._world, *shape), **self._where()))

    def places(self, rows: int) -> tuple[Int64[Tensor, "rows"], int]:
        return self._mine(torch.arange(rows * self._world, device=self.device)), rows * self._world

    def _mine(self, numbers: Tensor) -> Tensor:
        return numbers[self._rank :: self._world]

    def _where(self) -> dict[str, Any]:
        return {"generator": self._generator, "device": self.device}


class SeededRows:
    """Random numbers of which each row has a generator of its own, on the CPU: the same on every device.

    Args:
        seeds: one a row.
        device: where numbers are wanted.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._rows = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._device = device

    def normal(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        return self._draw(rows, lambda row: torch.randn(shape, generator=row))

    def uniform(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        return self._draw(rows, lambda row: torch.rand(shape, generator=row))

    def integers(self, high: int, rows: int, *shape: int) -> Int64[Tensor, "rows ..."]:
        return self._draw(rows, lambda row: torch.randint(high, shape, generator=row))

    def places(self, rows: int) -> tuple[Int64[Tensor, "rows"], int]:
        return torch.arange(rows, device=self._device), rows

    def _draw(self, rows: int, one: Callable[[torch.Generator], Tensor]) -> Tensor:
        assert rows == len(self._rows), f"{len(self._rows)} seeds for {rows} rows"
        return torch.stack([one(row) for row in self._rows]).to(self._device)


class GivenNoise:
    """Normal numbers that the caller has drawn, the same at each call.

    Args:
        noise: of the shape that is asked for, such as [B, T, A] of an action chunk.
    """

    def __init__(self, noise: Tensor) -> None:
        self._noise = noise

    def normal(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        return self._noise

    def uniform(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        raise ConfigError("the policy draws uniform numbers, where noise alone is given")

    def integers(self, high: int, rows: int, *shape: int) -> Int64[Tensor, "rows ..."]:
        raise ConfigError("the policy draws whole numbers, where noise alone is given")

    def places(self, rows: int) -> tuple[Int64[Tensor, "rows"], int]:
        return torch.arange(rows, device=self._noise.device), rows


class StillWhere:
    """The numbers of another source; a chunk's noise is 0 in dimensions that never move.

    Those dimensions are 0 in every demonstration, once standardised. With noise in them a head would have to
    learn to remove it, and would be off by what it has not learned.

    Args:
        random: the source.
        chunk: (T, A), the shape of the noise that is meant.
        moves: [A] bool, False where it is 0.
    """

    def __init__(self, random: Random, chunk: tuple[int, int], moves: Bool[Tensor, "A"]) -> None:
        self._random, self._chunk, self._moves = random, chunk, moves

    def normal(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        numbers = self._random.normal(rows, *shape)
        if shape != self._chunk:
            return numbers
        return torch.where(self._moves.to(numbers.device), numbers, torch.zeros_like(numbers))

    def uniform(self, rows: int, *shape: int) -> Float[Tensor, "rows ..."]:
        return self._random.uniform(rows, *shape)

    def integers(self, high: int, rows: int, *shape: int) -> Int64[Tensor, "rows ..."]:
        return self._random.integers(high, rows, *shape)

    def places(self, rows: int) -> tuple[Int64[Tensor, "rows"], int]:
        return self._random.places(rows)
