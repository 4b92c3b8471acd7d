"""Several processes on one piece of work, started by `torchrun`; one process is the usual case.

    torchrun --nproc-per-node 8 -m vla embed …

Each process works on its share; rank 0 alone holds locks, writes what is common, and prints.
"""

import datetime
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import distributed

from vla.base.errors import VlaError

T = TypeVar("T")

# Others wait in a collective while rank 0 validates and rolls out. A rank that dies does not need the
# timeout: torchrun ends the others.
TIMEOUT = datetime.timedelta(hours=12)

LOST_PEER = (
    "another process of this job has died (torchrun names it below, its own message is above); finished "
    "shards and checkpoints are kept: start the same command again, vla train with --resume"
)


@dataclass(frozen=True)
class World:
    """The processes that work together; a context manager.

    Attributes:
        rank: number of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> "World":
        """Meet the other processes that torchrun started; alone, there is nothing to wait for."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not distributed.is_initialized():
            gpu = torch.cuda.is_available()
            if gpu:
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=TIMEOUT)
        return cls(rank=int(os.environ["RANK"]), size=size)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here.

        Raises:
            VlaError: one has died, as in all that follows here.
        """
        if self.size > 1:
            with _lost_peers_explained():
                distributed.barrier()

    def broadcast(self, value: T | None) -> T:
        """Return rank 0's value in every process; the others pass None."""
        values = [value]
        if self.size > 1:
            with _lost_peers_explained():
                distributed.broadcast_object_list(values)
        assert values[0] is not None
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _lost_peers_explained():
            distributed.all_gather_object(values, value)
        return values

    def share(self, work: Sequence[T]) -> Sequence[T]:
        """Return this process's part: neighbouring items, as many as the others get, or one more or less."""
        borders = [len(work) * rank // self.size for rank in range(self.size + 1)]
        return work[borders[self.rank] : borders[self.rank + 1]]

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Average figures over processes."""
        if self.size == 1:
            return dict(figures)
        total = torch.tensor(list(figures.values()), dtype=torch.float64)
        with _lost_peers_explained():
            distributed.all_reduce(total)
        return dict(zip(figures, (total / self.size).tolist(), strict=True))

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size == 1:
            return
        if kind is None:
            distributed.destroy_process_group()
        elif error is not None and _is_lost_peer(error):  # backward() averages gradients
            raise VlaError(LOST_PEER) from error
        # After an error the others may never come: leaving is torchrun's signal to end them.


@contextmanager
def _lost_peers_explained() -> Iterator[None]:
    """Say what to do where a collective fails because a process at its other end has died."""
    try:
        yield
    except RuntimeError as error:
        if _is_lost_peer(error):
            raise VlaError(LOST_PEER) from error
        raise


def _is_lost_peer(error: BaseException) -> bool:
    """Tell by what gloo and NCCL say of a connection whose other end is gone."""
    signs = ("onnection closed by peer", "onnection reset by peer", "roken pipe", "NCCL")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
