"""Threads that compute side by side: on a CPU each with its own share of the cores, on a GPU two.

A batch split over all cores makes them wait for each other at the end of every operation, and whoever
decodes or renders beside it makes all of them wait. Batches of their own never meet
(docs/decisions/0009).
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

MOST_WORKERS = 16
"""Each needs memory: of 8 images SigLIP2-base's widest activation is 25 MB, and several live at a time."""
GPU_WORKERS = 2
"""One uploads while the other's batch is computed."""


def usable_cores() -> int:
    """Return how many cores this process may use: a scheduler such as SLURM allows some of the machine's."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def num_workers(device: torch.device) -> int:
    """Return how many threads keep a device busy; a CPU's have equal shares of torch's own threads."""
    if device.type != "cpu":
        return GPU_WORKERS
    threads = torch.get_num_threads()
    share = -(-threads // MOST_WORKERS)
    return threads // share


@contextmanager
def compute_threads(device: torch.device, workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give work to so many threads; torch's own threads are shared out among them on a CPU.

    Whoever leaves early, by an error or a signal, waits for what is at work, and not for what is queued.

    Args:
        device: where the work is computed.
        workers: threads; more than `num_workers` only wait for each other.
    """
    threads = torch.get_num_threads()
    share = max(1, threads // workers) if device.type == "cpu" else threads
    # torch counts threads by caller, and remembers the last number for callers that come later.
    pool = ThreadPoolExecutor(workers, "compute", torch.set_num_threads, (share,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
