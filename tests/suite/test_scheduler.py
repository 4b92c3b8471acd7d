"""The scheduler of `vla sweep`, on commands that take a moment: states, kills, orphans, several slots."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vla.base.interrupt import Interrupted
from vla.suite.folder import SuiteFolder
from vla.suite.lifeline import holder, is_alive, start
from vla.suite.scheduler import Scheduler
from vla.suite.stage import Stage
from vla.suite.status import RunStatus, SuiteStatus, read_status, write_status

ENDED = [sys.executable, "-c", "pass"]
SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def folder(tmp_path: Path) -> SuiteFolder:
    return SuiteFolder(tmp_path / "suite")


def queued(folder: SuiteFolder, *names: str, **changes: object) -> SuiteStatus:
    """Return a status of fresh runs."""
    runs = {name: RunStatus(steps=1, log=str(folder.log(name)), run=str(folder.run(name))) for name in names}
    runs = {name: run.model_copy(update=changes) for name, run in runs.items()}
    return SuiteStatus(name="test", updated="", sweep_pid=os.getpid(), runs=runs)


def scheduler(
    folder: SuiteFolder,
    status: SuiteStatus,
    commands: dict[str, list[str]],
    slots: int = 1,
    on_change: Callable[[SuiteStatus], None] = lambda status: None,
) -> Scheduler:
    """Return a scheduler of one command a run."""

    def next_stage(name: str, run: RunStatus, device: str) -> Stage | None:
        return None if "train" in run.completed else ("train", commands[name])

    return Scheduler(folder, status, ["cpu"] * slots, next_stage, on_change, dict(os.environ))


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def stops(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_every_run_ends_and_one_that_fails_does_not_stop_the_others(folder: SuiteFolder) -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('error: no room left')"]
    commands = {"a": ENDED, "b": fails, "c": ENDED}
    runs = scheduler(folder, queued(folder, *commands), commands).run().runs
    assert [run.state for run in runs.values()] == ["done", "failed", "done"]
    assert (runs["b"].error, runs["b"].exit_code) == ("no room left", 1)
    assert read_status(folder).runs == runs


def test_a_killed_child_is_interrupted_and_goes_on_when_the_sweep_does(
    folder: SuiteFolder,
) -> None:
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    status = scheduler(folder, queued(folder, "a"), {"a": killed}).run()
    assert (status.runs["a"].state, status.runs["a"].error) == ("interrupted", "ended by SIGKILL")
    assert scheduler(folder, read_status(folder), {"a": ENDED}).run().runs["a"].state == "done"


def test_a_child_that_heeded_a_signal_is_interrupted_not_failed(folder: SuiteFolder) -> None:
    stopped = [sys.executable, "-c", "raise SystemExit(143)"]
    run = scheduler(folder, queued(folder, "a"), {"a": stopped}).run().runs["a"]
    assert (run.state, run.error, run.exit_code) == ("interrupted", "ended by SIGTERM", 143)


def test_slots_work_side_by_side_and_never_more_than_there_are(folder: SuiteFolder) -> None:
    running: list[int] = []

    def count(status: SuiteStatus) -> None:
        running.append(sum(run.state == "running" for run in status.runs.values()))

    second = [sys.executable, "-c", "import time; time.sleep(1.0)"]  # long enough for two to start
    work = scheduler(folder, queued(folder, *"abcd"), dict.fromkeys("abcd", second), slots=2, on_change=count)
    assert {run.state for run in work.run().runs.values()} == {"done"}
    assert max(running) == 2


def test_a_run_whose_process_is_gone_is_told_as_interrupted_though_its_pid_lives(folder: SuiteFolder) -> None:
    status = queued(folder, "a", state="running", pid=os.getpid())  # the number of another process by now
    write_status(folder, status)
    assert read_status(folder).runs["a"].state == "interrupted"


def test_a_run_whose_start_was_not_written_down_is_told_as_running(folder: SuiteFolder) -> None:
    process = start(SLEEPS, folder.lock("a"), folder.log("a"), os.environ)
    try:
        write_status(folder, queued(folder, "a"))
        run = read_status(folder).runs["a"]
        assert (run.state, run.pid) == ("running", process.pid)
    finally:
        stops(process)
    assert holder(folder.lock("a")) is None


def test_an_orphan_of_a_killed_sweep_is_waited_for_not_started_twice(
    folder: SuiteFolder, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    program = f"open({str(started)!r}, 'a').write('x'); import time; time.sleep(1.0)"
    command = [sys.executable, "-c", program]
    orphan = start(command, folder.lock("a"), folder.log("a"), os.environ)
    threading.Thread(target=orphan.wait).start()  # in place of init, which collects real orphans
    wait_until(started.exists)
    confirmed = [sys.executable, "-c", f"assert not {is_alive(folder.lock('b'))}"]
    began = time.monotonic()
    status = scheduler(folder, queued(folder, "a"), {"a": confirmed}).run()
    assert status.runs["a"].state == "done" and started.read_text() == "x"
    assert time.monotonic() - began > 0.5


def test_an_orphan_that_ends_before_it_is_adopted_is_started_again(folder: SuiteFolder) -> None:
    status = queued(folder, "a", state="running", pid=os.getpid())  # it lived when this was read
    assert scheduler(folder, status, {"a": ENDED}).run().runs["a"].state == "done"


def test_a_child_says_who_it_is_though_its_sweep_could_not(
    folder: SuiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(os, "pwrite", lambda *_: 0)
        process = start(SLEEPS, folder.lock("a"), folder.log("a"), os.environ)
    try:
        wait_until(lambda: holder(folder.lock("a")) == process.pid)
    finally:
        stops(process)


def test_what_a_child_leaves_running_ends_before_its_run_goes_on(folder: SuiteFolder, tmp_path: Path) -> None:
    left = tmp_path / "left"
    forks = f"pid = os.fork(); open({str(left)!r}, 'a').write(str(pid)) if pid else time.sleep(60)"
    program = f"import os, time; {forks}"
    status = scheduler(folder, queued(folder, "a"), {"a": [sys.executable, "-c", program]}).run()
    assert status.runs["a"].state == "done" and not is_alive(folder.lock("a"))
    pid = int(left.read_text())
    assert (
        not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
    )  # zombie


def test_two_processes_never_hold_one_run(folder: SuiteFolder) -> None:
    process = start(SLEEPS, folder.lock("a"), folder.log("a"), os.environ)
    try:
        with pytest.raises(BlockingIOError):
            start(SLEEPS, folder.lock("a"), folder.log("a"), os.environ)
    finally:
        stops(process)


def test_sigint_stops_the_children_first(folder: SuiteFolder) -> None:
    work = scheduler(folder, queued(folder, "a", "b"), {"a": SLEEPS, "b": SLEEPS})

    def interrupt() -> None:
        wait_until(lambda: is_alive(folder.lock("a")))
        time.sleep(0.3)  # the child must have come to its sleep
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted, match="keep their checkpoints") as stopped:
        work.run()
    assert stopped.value.exit_code == 130
    states = {name: run.state for name, run in read_status(folder).runs.items()}
    assert states == {"a": "interrupted", "b": "queued"}
    assert json.loads(folder.status.read_text())["runs"]["a"]["error"] == "the sweep was stopped"
