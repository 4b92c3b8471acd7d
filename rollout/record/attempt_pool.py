"""Processes that run attempts side by side, each with an OpenGL context of its own.

Workers never touch the disk: they send the bytes of a finished attempt to the process that started
them. When that one dies, however it dies, they die as well.
"""

import multiprocessing as mp
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection, wait

from vla.base.errors import EnvironmentSetupError, VlaError
from vla.base.family import load_plugins, loaded_plugins
from vla.rollout.record.plan import Plan


class AttemptPool:
    """Hands out attempts to idle workers. Made by `open_pool`."""

    def __init__(self, workers: list[Connection]) -> None:
        self._idle = list(workers)
        self._busy: dict[Connection, int] = {}

    @property
    def num_idle(self) -> int:
        """Workers without an attempt."""
        return len(self._idle)

    @property
    def running(self) -> set[int]:
        """Numbers of the attempts that are being run."""
        return set(self._busy.values())

    def start(self, number: int) -> None:
        """Let an idle worker run an attempt."""
        worker = self._idle.pop()
        worker.send(number)
        self._busy[worker] = number

    def finished(self) -> Iterator[tuple[int, bytes]]:
        """Wait until at least one attempt is finished; yield number and table of each that is.

        Raises:
            VlaError: what went wrong in a worker.
        """
        for worker in wait(list(self._busy)):
            assert isinstance(worker, Connection)
            number = self._busy.pop(worker)
            try:
                result = worker.recv()
            except EOFError:
                raise EnvironmentSetupError(
                    f"the process of attempt {number} died (out of memory, perhaps); "
                    "finished attempts are kept: run the same command again, or with fewer --workers"
                ) from None
            if isinstance(result, VlaError):
                raise result
            self._idle.append(worker)
            yield number, result


@contextmanager
def open_pool(plan: Plan, num_workers: int) -> Iterator[AttemptPool]:
    """Start worker processes; they are ended, busy or not, when the context is left."""
    # A forked child would inherit threads and OpenGL in an unusable state.
    context = mp.get_context("spawn")
    processes, connections = [], []
    try:
        for _ in range(num_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, plan, loaded_plugins()), daemon=True)
            process.start()
            theirs.close()  # so that a worker's death reads as the end of the pipe
            processes.append(process)
            connections.append(ours)
        yield AttemptPool(connections)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
            process.close()
        for connection in connections:
            connection.close()


def _serve(connection: Connection, plan: Plan, plugins: tuple[str, ...]) -> None:
    """Run attempts until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # One process a core: threads of llvmpipe and torch would only wait for each other.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    import torch  # here, because the parent can do without

    from vla.rollout.record.attempt import AttemptRunner

    torch.set_num_threads(1)
    try:
        load_plugins(plugins)
        with closing(AttemptRunner(plan)) as runner:
            while True:
                connection.send(runner.run(connection.recv()))
    except EOFError:
        return
    except VlaError as error:
        connection.send(error)
    except Exception as error:  # of an environment or an expert, whoever wrote it
        place = traceback.extract_tb(error.__traceback__)[-1]
        connection.send(
            EnvironmentSetupError(
                f"recording task '{plan.task}' raised {type(error).__name__}: {error} at "
                f"{place.filename}:{place.lineno}; finished attempts are kept"
            )
        )


def _die_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
