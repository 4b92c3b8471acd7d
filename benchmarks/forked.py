"""Run commands of vla in forks of this process, which has imported everything and computed nothing.

A start takes milliseconds, not seconds, so kills fall on the work and not on imports. All that a fork
starts carries a mark in its environment and can be found by it, whoever is its parent by then.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE_S = 300.0
MARK = f"VLA_FAULTS={os.getpid()}"


def start(command: Sequence[str], log: Path) -> int:
    """Run a command of vla in a fork of this process; return its process id."""
    from vla.cli import main

    return fork(lambda: main(list(command)), log)


def fork(job: Callable[[], object], log: Path) -> int:
    """Run something in a fork of this process; return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(log.parent)  # where no pipeline.toml lies
        name, _, value = MARK.partition("=")
        # Sums of floats depend on the number of threads, here and in what the fork starts.
        os.environ |= {name: value, "OMP_NUM_THREADS": "1"}
        import torch

        torch.set_num_threads(1)
        job()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """Return the exit code of a fork, negative for a signal; None if it still runs after some seconds."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(min(0.002, max(0.0, end - time.monotonic())))


def kill(pid: int) -> None:
    """Kill a fork; what it has started is not touched."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def finish(command: Sequence[str], log: Path) -> int:
    """Run a command to its end; return its exit code."""
    pid = start(command, log)
    code = wait(pid, PATIENCE_S)
    if code is None:
        kill(pid)
        raise SystemExit(f"vla {' '.join(command)} did not end within {PATIENCE_S:.0f} s; see {log}")
    return code


def require(good: bool, log: Path) -> None:
    if not good:
        raise SystemExit(f"a command failed: {log.read_text()[-2000:]}")


def descendants() -> list[int]:
    """Return the ids of the living processes that forks have started, orphans among them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if MARK.encode() in (folder / "environ").read_bytes().split(b"\0"):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(folder.name)] if state != "Z" else []
        except OSError:
            continue  # it ended meanwhile
    return found


def left_alive(seconds: float) -> int:
    """Return how many of them still live after some seconds at most."""
    end = time.monotonic() + seconds
    while (living := len(descendants())) and time.monotonic() < end:
        time.sleep(0.05)
    return living
