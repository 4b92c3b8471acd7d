"""Threads that compute side by side: how many, and what they leave behind."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from vla.base.threads import MOST_WORKERS, compute_threads, num_workers

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads_of_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_all_threads_are_shared_out_evenly_among_a_limited_number_of_workers() -> None:
    found = {}
    for threads in (1, 2, 16, 24, 64):
        torch.set_num_threads(threads)
        found[threads] = num_workers(CPU)
    assert found == {1: 1, 2: 2, 16: 16, 24: 12, 64: MOST_WORKERS}
    assert num_workers(torch.device("cuda")) == 2


def test_each_worker_has_its_share_and_torch_gets_its_threads_back() -> None:
    torch.set_num_threads(6)
    with compute_threads(CPU, 3) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2
    assert torch.get_num_threads() == 6


def test_who_leaves_early_does_not_wait_for_what_is_queued() -> None:
    done, began = [], threading.Event()

    def work(number: int) -> None:
        began.set()
        time.sleep(0.1)
        done.append(number)

    with pytest.raises(KeyboardInterrupt), compute_threads(CPU, 1) as pool:
        for number in range(50):
            pool.submit(work, number)
        began.wait()
        raise KeyboardInterrupt
    assert len(done) < 10
