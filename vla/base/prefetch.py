"""Run an iterator in a thread of its own, a few items ahead of whoever consumes it."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T], depth: int) -> Iterator[T]:
    """Yield the items of an iterator that is advanced in the background.

    At most `depth` finished items wait. An exception of the iterator is raised here, at its place in
    the order. When the consumer stops early, the thread ends after its current item.
    """
    done = object()
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(done)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not done:
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]  # the queue carries T, `done` and exceptions
    finally:
        stopped.set()
        thread.join()
