"""Run a suite's runs, one a slot, and keep `status.json` true while they go.

Finished runs are left alone; interrupted ones go on where their last checkpoint stands. A run whose process
outlived a killed sweep is not started twice: its slot waits for it, then its command is run once more, which
costs seconds where it was finished and goes on where it was not.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from vla.base.interrupt import SIGNALS, Interrupted
from vla.suite.folder import SuiteFolder
from vla.suite.lifeline import holder, is_alive, last_error, send, start
from vla.suite.stage import Stage
from vla.suite.status import RunStatus, SuiteStatus, corrected, write_status

POLL_S, WRITE_S = 0.2, 5.0
# A training step and a checkpoint end well within this; then stronger signals follow.
PATIENCE_S = 20.0
# What vla exits with when it heeded SIGINT or SIGTERM.
STOPPED = (130, 143)

NextStage = Callable[[str, RunStatus, str], Stage | None]
"""The stage that a run of a name and status needs next on a device; None if it has all."""


@dataclass
class Slot:
    """A device, or a share of one; at most one process."""

    device: str
    run: str | None = None
    process: subprocess.Popen[bytes] | None = None
    """None for a process that an earlier sweep started."""


class Scheduler:
    """Works through the runs of a suite.

    Args:
        folder: the suite directory; its lock is held.
        status: all runs; those that are done are left alone.
        devices: one a slot.
        next_stage: what a run needs next.
        on_change: called whenever a run starts or ends.
        environment: of the children.
        who: is stopped by a signal, in words.
    """

    def __init__(
        self,
        folder: SuiteFolder,
        status: SuiteStatus,
        devices: Sequence[str],
        next_stage: NextStage,
        on_change: Callable[[SuiteStatus], None],
        environment: dict[str, str],
        who: str = "the sweep",
    ) -> None:
        self._folder, self._next_stage, self._on_change = folder, next_stage, on_change
        self._environment, self._name, self._who = environment, status.name, who
        self._slots, self._capacity = [Slot(device) for device in devices], len(devices)
        self._runs = dict(status.runs)
        self._stopping: int | None = None
        self._written = 0.0

    @property
    def status(self) -> SuiteStatus:
        return SuiteStatus(name=self._name, updated=now(), sweep_pid=os.getpid(), runs=dict(self._runs))

    def run(self) -> SuiteStatus:
        """Work until every run has ended, or until SIGINT or SIGTERM; then the children are stopped.

        Raises:
            Interrupted: it was stopped by a signal.
        """
        with self._signals():
            self._adopt()
            self._changed()
            while self._stopping is None:
                self._collect()
                if not self._fill() and all(slot.run is None for slot in self._slots):
                    break
                if time.monotonic() - self._written > WRITE_S:
                    self._write()
                time.sleep(POLL_S)
            if self._stopping is not None:
                self._stop()
        self._changed()
        if self._stopping is not None:
            raise Interrupted(self._stopping, "the runs keep their checkpoints")
        return self.status

    def _adopt(self) -> None:
        """Give a slot to each process of an earlier sweep that still lives, on its device if possible.

        All other runs that are not done are queued: also one whose process was alive when its status was
        read, and has ended since.
        """
        for name, run in list(self._runs.items()):
            if not is_alive(self._folder.lock(name)):
                if run.state != "done":
                    self._set(name, state="queued", error=None)
                continue
            device = run.device
            free = [slot for slot in self._slots if slot.run is None]
            slot = next((slot for slot in free if slot.device == device), None)
            if slot is None:  # more processes than slots: they share, and new ones wait
                slot = Slot(device or self._slots[0].device)
                self._slots.append(slot)
            slot.run = name
            self._set(name, state="running", device=slot.device, pid=holder(self._folder.lock(name)))

    def _collect(self) -> None:
        """Note the processes that have ended; a run with a stage left goes on in its slot."""
        for slot in self._slots:
            if slot.run is None:
                continue
            if slot.process is None:  # adopted: nobody tells its exit code
                if is_alive(self._folder.lock(slot.run)):
                    continue
            elif slot.process.poll() is None:
                continue
            elif is_alive(self._folder.lock(slot.run)):
                send(slot.process.pid, signal.SIGKILL)  # what it started and left: a second writer, perhaps
                continue
            name, code = slot.run, slot.process.returncode if slot.process else None
            slot.run = slot.process = None
            self._ended(name, code)
            if self._runs[name].state == "queued":
                self._advance(slot, name)
            self._changed()

    def _fill(self) -> bool:
        """Start queued runs in free slots; return whether any are left to start."""
        for slot in self._slots:
            if sum(slot.run is not None for slot in self._slots) >= self._capacity:
                break  # processes of an earlier sweep may fill more slots than there are devices
            waiting = [name for name, run in self._runs.items() if run.state == "queued"]
            if slot.run is None and waiting:
                self._advance(slot, waiting[0])
                self._changed()
        return any(run.state == "queued" for run in self._runs.values())

    def _advance(self, slot: Slot, name: str) -> None:
        """Start a run's next stage, or note that it is done."""
        stage = self._next_stage(name, self._runs[name], slot.device)
        if stage is None:
            self._set(name, state="done", finished=self._runs[name].finished or now(), error=None)
            return
        kind, command = stage
        lock, log = self._folder.lock(name), self._folder.log(name)
        slot.process = start(command, lock, log, self._environment)
        slot.run = name
        self._set(
            name,
            state="running",
            stage=kind,
            pid=slot.process.pid,
            device=slot.device,
            started=now(),
            finished=None,
            exit_code=None,
            error=None,
        )

    def _ended(self, name: str, code: int | None) -> None:
        """Note how a process ended; 0, or unknown, puts the run back for its next stage."""
        self._set(name, exit_code=code, finished=now())
        if code is None:
            self._set(name, state="queued")
        elif code == 0:
            run = self._runs[name]
            self._set(name, state="queued", completed=tuple(dict.fromkeys([*run.completed, run.stage])))
        elif code < 0 or code in STOPPED:
            number = -code if code < 0 else code - 128
            self._set(name, state="interrupted", error=f"ended by {signal.Signals(number).name}")
        else:
            said = last_error(self._folder.log(name))
            self._set(name, state="failed", error=said or f"exit code {code}; see {self._folder.log(name)}")

    def _stop(self) -> None:
        """Stop all children: SIGINT, and if that is not enough SIGTERM, then SIGKILL."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            self._signal_children(number)
            until = time.monotonic() + PATIENCE_S
            while time.monotonic() < until and any(self._lives(slot) for slot in self._slots):
                time.sleep(POLL_S)
        for slot in self._slots:
            if slot.run is not None:
                code = slot.process.poll() if slot.process else None
                self._set(slot.run, state="interrupted", error=f"{self._who} was stopped")
                self._set(slot.run, finished=now(), exit_code=code)

    def _signal_children(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.run is not None and self._lives(slot):
                pid = slot.process.pid if slot.process else holder(self._folder.lock(slot.run))
                if pid is not None:
                    send(pid, number)

    def _lives(self, slot: Slot) -> bool:
        if slot.process is not None:
            return slot.process.poll() is None
        return slot.run is not None and is_alive(self._folder.lock(slot.run))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a wish to stop."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._stopping = number

        earlier = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _set(self, name: str, **changes: Any) -> None:
        self._runs[name] = self._runs[name].model_copy(update=changes)

    def _changed(self) -> None:
        self._write()
        self._on_change(self.status)

    def _write(self) -> None:
        self._written = time.monotonic()
        for name, run in self._runs.items():
            self._runs[name] = corrected(self._folder, name, run)
        write_status(self._folder, self.status)


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
