"""Whether a run's process lives, told by the kernel: it holds a lock that ends with it.

A process id alone can lie: the sweep may be killed before it writes the id down, and the system gives ids
of dead processes to new ones. The lock is handed to the child when it is started and goes when the child
goes, however either of them ends. The id is written into the locked file, for people and for signals: by
the child itself too, because a sweep may be killed between starting it and writing.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMAND_MARK = "$ "
"""Begins the line of a log that names the command whose output follows."""
WRITE_OWN_ID = 'trap "" USR2; echo $$ 1<>"$0"; exec "$@"'
"""What /bin/sh does before it becomes the command, under the same id.

SLURM gives notice of a time limit by SIGUSR2, to the processes below a job too: there it is not for them.
"""
# A reader of the status holds a run's lock for some microseconds while it asks.
TRIES, BETWEEN_TRIES_S = 20, 0.05


def start(
    command: Sequence[str], lock: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a command that holds `lock` as long as it lives, printing into `log`.

    It leads a session of its own: Ctrl-C reaches it through the sweep alone, and a sweep that is killed
    does not take hours of training with it.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(descriptor)
        os.truncate(descriptor, 0)
        with log.open("ab") as output:
            output.write(f"{COMMAND_MARK}{shlex.join(command)}\n".encode())
            output.flush()
            process = subprocess.Popen(
                ["/bin/sh", "-c", WRITE_OWN_ID, str(lock), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                pass_fds=(descriptor,),  # the lock belongs to the open file, which both now share
                start_new_session=True,
            )
        os.pwrite(descriptor, f"{process.pid}\n".encode(), 0)
        return process
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> None:
    for _ in range(TRIES):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(BETWEEN_TRIES_S)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_alive(lock: Path) -> bool:
    """Return whether a process that `start` made with this lock still lives."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(lock: Path) -> int | None:
    """Return the id of the living process that holds a lock, or None."""
    if not is_alive(lock):
        return None
    text = lock.read_text().strip()
    return int(text) if text.isdigit() else None


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that `start` made and to all that it started."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return  # it ended meanwhile


def last_error(log: Path) -> str | None:
    """Return the last one-line error that the latest command printed, without its mark."""
    if not log.is_file():
        return None
    latest = ("\n" + log.read_text(errors="replace")).rpartition("\n" + COMMAND_MARK)[2]
    said = [line.removeprefix("error: ") for line in latest.splitlines() if line.startswith("error: ")]
    return said[-1] if said else None
