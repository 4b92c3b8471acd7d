"""Environments in processes of their own; a failure of one is a line that says which, and why."""

import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from vla.base.errors import EnvironmentSetupError, VlaError
from vla.rollout.evaluate.chunk_env import ChunkEnv

SECONDS_TO_END = 5.0
"""Between the end of a process's pipe and its own."""


class EnvironmentProcesses(AsyncVectorEnv):
    """Environments that are stepped side by side.

    Args:
        make: builds one; called in every process, and once in this one, for its spaces.
        num_envs: how many.
        env_id: what errors call it.
        first: errors count the processes from here.
        total: of which errors say there are so many; None is `num_envs`.

    Raises:
        EnvironmentSetupError: here or in any method: an environment raised something, or its process ended.
    """

    def __init__(
        self,
        make: Callable[[], ChunkEnv],
        num_envs: int,
        env_id: str,
        first: int = 1,
        total: int | None = None,
    ) -> None:
        self.env_id, self._first, self._total, self._broken = env_id, first, total or num_envs, False
        with self._named():
            # spawn: a forked child would inherit torch's threads and the GL context in an unusable state.
            # copy=False: observations stay in shared memory; they are encoded before the next step.
            super().__init__(
                [make] * num_envs, context="spawn", copy=False, autoreset_mode=AutoresetMode.DISABLED
            )

    def reset_async(self, seed: Any = None, options: dict[str, Any] | None = None) -> None:
        """Begin episodes."""
        with self._named():
            super().reset_async(seed, options)

    def reset_wait(self, timeout: float | None = None) -> Any:
        """Return the first observations."""
        with self._named():
            return super().reset_wait(timeout)

    def step_async(self, actions: Any) -> None:
        """Begin a chunk."""
        with self._named():
            super().step_async(actions)

    def step_wait(self, timeout: float | None = None) -> Any:
        """Return what came of the chunk."""
        with self._named():
            return super().step_wait(timeout)

    def abort(self) -> None:
        """End all processes; whoever waits for an answer gets an error. `close` is still to be called."""
        self._broken = True
        for process in self.processes:
            process.terminate()

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments; end their processes at once where one has failed or is at work."""
        busy = getattr(self, "_state", None) != AsyncState.DEFAULT
        self._state = AsyncState.DEFAULT  # or else Gymnasium waits for the answers
        try:
            super().close_extras(timeout, terminate or busy or self._broken)
        except (EOFError, OSError):
            super().close_extras(terminate=True)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:  # pipes; what environments raise comes as an error of ours
            self._broken = True
            raise EnvironmentSetupError(self._ended(error)) from error
        except BaseException:
            self._broken = True
            raise

    def _ended(self, error: Exception) -> str:
        processes = getattr(self, "processes", [])
        ended = wait([process.sentinel for process in processes], SECONDS_TO_END)
        for number, process in enumerate(processes, self._first):
            if process.sentinel in ended:
                process.join(SECONDS_TO_END)  # its pipes close a moment before its exit code is there
            code = process.exitcode
            if code is not None:
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                return (
                    f"environment process {number} of {self._total} ('{self.env_id}') ended ({how}); "
                    "if the memory is not enough for all of them, run fewer side by side: "
                    f"--set rollout.num_envs={max(1, self._total // 2)}"
                )
        return f"the processes of environment '{self.env_id}' cannot be run: {type(error).__name__}: {error}"

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Say what an environment raised; Gymnasium would print its traceback and make the error anew."""
        if all(successes):
            return
        try:
            index, kind, value, trace = self.error_queue.get(timeout=SECONDS_TO_END)
        except Exception as error:  # what it raised cannot be pickled, or not be made again
            raise EnvironmentSetupError(
                f"environment '{self.env_id}' raised an error that cannot be passed on ({error})"
            ) from error
        if issubclass(kind, VlaError):
            raise EnvironmentSetupError(str(value))
        places = re.findall(r'File "(.+?)", line (\d+)', trace)
        where = " at {}:{}".format(*places[-1]) if places else ""
        raise EnvironmentSetupError(
            f"environment '{self.env_id}', process {self._first + index} of {self._total}, raised "
            f"{kind.__name__}: {value}{where}"
        )
