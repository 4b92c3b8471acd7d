"""`vla sweep --launcher slurm` on a real cluster of one node: make slurm."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_datasets import write_dataset

from vla.base.errors import VlaError
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.suite.folder import SuiteFolder
from vla.suite.launcher import Launcher
from vla.suite.manifest import read_manifest
from vla.suite.slurm.cluster import Cluster
from vla.suite.status import RunStatus, read_status
from vla.suite.sweep import sweep

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

BASE = """
[encoder]
id = "siglip2-tiny-random"
[policy]
cond_dim = 8
n_emb = 16
n_layer = 1
n_head = 2
[train]
steps = 60
batch_size = 8
val_episodes = 1
rollout_every = 0
log_every = 1
val_every = 30
save_every = 10
"""
SUITE = """
name = "small"
config = "base.toml"
cache = "features/CACHE"
[grid]
"policy.per_view_dim" = [4, 6]
[slurm]
gpus = 0
cpus = 1
time = "1:00:00"
poll_s = 0.5
"""
FIRST, SECOND = "per_view_dim-4-seed0", "per_view_dim-6-seed0"
SWEEP = [sys.executable, "-m", "vla", "sweep", "suite.toml", "--launcher", "slurm"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SuiteFolder]:
    """Prepare two small trainings; no job of theirs is left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_dataset(Path("demos"), lengths=(12, 9, 10), size=(64, 64))
    embed = ["embed", "--dataset", "demos", "--encoder", "siglip2-tiny-random", "--out", "features"]
    subprocess.run([sys.executable, "-m", "vla", *embed, "--device", "cpu"], check=True)
    Path("base.toml").write_text(BASE)
    Path("suite.toml").write_text(SUITE.replace("CACHE", next(Path("features").iterdir()).name))
    folder = SuiteFolder(Path("runs/small"))
    yield folder
    if alive := [job.id for job in Cluster(folder).jobs().values() if job.is_alive]:
        subprocess.run(["scancel", *alive], check=True)


def states(folder: SuiteFolder) -> dict[str, str]:
    return {name: run.state for name, run in read_status(folder).runs.items()}


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 600
    while not true():
        assert time.monotonic() < until
        time.sleep(0.2)


def frozen(folder: SuiteFolder, name: str, step: int) -> RunStatus:
    """Wait until a run has come to a step, and freeze its training there; return how it stands."""
    run = RunDirectory(folder.run(name))
    wait_until(lambda: any(row["step"] >= step for row in read_metrics(run)))
    status = read_status(folder).runs[name]
    os.kill(status.pid or 0, signal.SIGSTOP)
    return status


def jobs_of(folder: SuiteFolder, name: str) -> list[dict[str, str]]:
    return list(read_manifest(folder)["runs"][name]["jobs"])


def steps_of(folder: SuiteFolder, name: str) -> list[int]:
    return [row["step"] for row in read_metrics(RunDirectory(folder.run(name)), "train")]


def test_a_suite_outlives_its_submitter_and_a_cancelled_job(folder: SuiteFolder) -> None:
    submitter = subprocess.Popen(SWEEP)
    wait_until(lambda: folder.status.is_file() and all(run.job for run in read_status(folder).runs.values()))
    first = frozen(folder, FIRST, 12)
    submitter.send_signal(signal.SIGKILL)
    submitter.wait()
    assert (first.state, first.node) == ("running", platform.node())

    with pytest.raises(VlaError, match=r"is on a cluster, in jobs \d+ \d+; go on with --launcher slurm"):
        sweep(Path("suite.toml"), devices=["cpu"])
    second = read_status(folder).runs[SECOND]
    subprocess.run(["scancel", str(second.job)], check=True)
    wait_until(lambda: states(folder)[SECOND] == "interrupted")
    command = [sys.executable, "-m", "vla", "sweep", str(folder.path), "--status", "--json"]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["runs"]
    assert (told[FIRST]["state"], told[SECOND]["state"]) == ("running", "interrupted")
    assert (told[FIRST]["job"], told[FIRST]["node"]) == (first.job, platform.node())

    os.kill(first.pid or 0, signal.SIGCONT)
    sweep(Path("suite.toml"), launcher=Launcher.SLURM)
    assert states(folder) == {FIRST: "done", SECOND: "done"}
    assert jobs_of(folder, FIRST) == [
        {"id": first.job, "node": platform.node()}
    ]  # found again, not begun again
    again = jobs_of(folder, SECOND)
    assert again[0]["id"] == second.job and len(again) == 2
    assert steps_of(folder, FIRST) == steps_of(folder, SECOND) == list(range(1, 61))
    assert folder.notes.read_text().count("| done |") == 2
    before = folder.log(SECOND).read_text()
    sweep(Path("suite.toml"), launcher=Launcher.SLURM)  # nothing left to do
    assert folder.log(SECOND).read_text() == before and jobs_of(folder, SECOND) == again


def test_a_run_that_is_out_of_time_goes_on_in_the_queue_under_its_number(folder: SuiteFolder) -> None:
    submitter = subprocess.Popen(SWEEP)
    wait_until(lambda: bool(read_metrics(RunDirectory(folder.run(FIRST)))))
    job = str(read_status(folder).runs[FIRST].job)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)  # as SLURM does before the time limit
    wait_until(lambda: Cluster(folder).jobs()[FIRST].is_waiting)
    assert states(folder)[FIRST] == "queued"
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
    assert submitter.wait(timeout=600) == 0
    assert steps_of(folder, FIRST) == list(range(1, 61)) and "--resume" in folder.log(FIRST).read_text()
    assert [entry["id"] for entry in jobs_of(folder, FIRST)] == [job]


def test_a_run_that_fails_says_why_and_the_other_is_done(folder: SuiteFolder) -> None:
    folder.run(FIRST).mkdir(parents=True)
    (folder.run(FIRST) / "precious").touch()  # vla train does not write there
    with pytest.raises(VlaError, match=rf"1 of 2 runs did not finish; '{FIRST}' failed: .* choose another"):
        sweep(Path("suite.toml"), launcher=Launcher.SLURM)
    assert states(folder) == {FIRST: "failed", SECOND: "done"}


def test_what_slurm_refuses_is_one_line(folder: SuiteFolder) -> None:
    with pytest.raises(VlaError, match=rf"SLURM refuses run '{FIRST}' \(.*invalid partition.*\); mend"):
        sweep(Path("suite.toml"), launcher=Launcher.SLURM, slurm=["partition=nowhere"])
    assert states(folder) == {FIRST: "queued", SECOND: "queued"}


def test_ctrl_c_ends_the_watching_and_not_the_jobs(folder: SuiteFolder) -> None:
    submitter = subprocess.Popen(SWEEP, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: folder.status.is_file() and all(run.job for run in read_status(folder).runs.values()))
    submitter.send_signal(signal.SIGINT)
    said = submitter.communicate(timeout=60)[1]
    assert submitter.returncode == 130 and "the jobs go on (to stop them: scancel " in said
    assert set(states(folder).values()) <= {"queued", "running"}
