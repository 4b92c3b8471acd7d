"""How runs on a cluster stand, with a SLURM of a few lines of shell; the real one: tests/slurm."""

import os
from pathlib import Path

import pytest

from vla.base.errors import ConfigError, VlaError
from vla.suite.folder import SuiteFolder
from vla.suite.launcher import Launcher
from vla.suite.manifest import note_jobs
from vla.suite.slurm.cluster import Cluster, _parameters
from vla.suite.slurm.job_status import run_status
from vla.suite.slurm.options import SlurmConfig, with_options
from vla.suite.status import RunStatus, SuiteStatus, read_status, write_status
from vla.suite.sweep import sweep, take_home


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SuiteFolder:
    """Return a suite with a `squeue` that prints what `slurm_says` wrote; no accounting."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "squeue").write_text(f"#!/bin/sh\ncat {tmp_path}/squeue.txt\n")
    (binaries / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    return SuiteFolder(tmp_path / "suite")


def slurm_says(folder: SuiteFolder, *jobs: tuple[str, str, str]) -> None:
    """Let SLURM remember jobs: number, state, run."""
    lines = [f"{number}|{state}|n1|vla {folder.run(run)}\n" for number, state, run in jobs]
    foreign = "7|RUNNING|n1|vla /elsewhere/runs/a\n8|RUNNING|n1|(null)\n"
    (folder.path.parent / "squeue.txt").write_text(foreign + "".join(lines))


def known(folder: SuiteFolder, **changes: object) -> None:
    """Write down how run `a` was last known to stand."""
    write_status(folder, status_of(folder, **changes))


def wrote(folder: SuiteFolder, **changes: object) -> None:
    """Let the job of run `a` write how it stands."""
    path = folder.job_status("a")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(status_of(folder, **changes).model_dump_json())


def status_of(folder: SuiteFolder, **changes: object) -> SuiteStatus:
    run = RunStatus(steps=9, log=str(folder.log("a")), run=str(folder.run("a"))).model_copy(update=changes)
    return SuiteStatus(name="test", updated="", sweep_pid=1, runs={"a": run})


def state(folder: SuiteFolder) -> tuple[str, str | None, str | None]:
    run = read_status(folder).runs["a"]
    return run.state, run.job, run.error


@pytest.mark.parametrize(
    ("slurm", "own", "expected"),
    [
        ("PENDING", None, ("queued", None)),
        ("RUNNING", None, ("running", None)),
        ("RUNNING", "done", ("done", None)),  # it tidies up
        ("COMPLETED", "done", ("done", None)),
        ("COMPLETED", "running", ("done", None)),  # its last words are on their way
        ("FAILED", "failed", ("failed", "no room")),
        ("CANCELLED", "interrupted", ("interrupted", "no room")),
        ("CANCELLED", None, ("interrupted", "job 12 ended: CANCELLED")),
        ("OUT_OF_MEMORY", "running", ("interrupted", "job 12 ended: OUT_OF_MEMORY")),
        ("PENDING", "interrupted", ("queued", None)),  # put back into the queue
        ("NEW_WORD", "running", ("running", None)),  # rather alive than started twice
    ],
)
def test_slurm_says_whether_a_job_lives_and_the_job_what_it_did(
    folder: SuiteFolder, slurm: str, own: str | None, expected: tuple[str, str | None]
) -> None:
    known(folder, job="12", state="queued")
    if own:
        error = "no room" if own in ("failed", "interrupted") else None
        wrote(folder, job="12", state=own, error=error)
    slurm_says(folder, ("12", slurm, "a"))
    assert state(folder) == (expected[0], "12", expected[1])


def test_a_job_whose_submitter_could_not_write_its_number_is_found(folder: SuiteFolder) -> None:
    known(folder, job="3", state="interrupted")
    slurm_says(folder, ("3", "TIMEOUT", "a"), ("12", "RUNNING", "a"))
    assert state(folder) == ("running", "12", None)


def test_what_an_earlier_job_wrote_is_not_taken_for_the_newest(folder: SuiteFolder) -> None:
    known(folder, job="12", state="queued")
    wrote(folder, job="3", state="done", completed=("train",))
    slurm_says(folder, ("3", "COMPLETED", "a"), ("12", "CANCELLED", "a"))
    assert state(folder) == ("interrupted", "12", "job 12 ended: CANCELLED")
    assert read_status(folder).runs["a"].completed == ("train",)


def test_a_job_that_slurm_has_forgotten_is_gone(folder: SuiteFolder) -> None:
    known(folder, job="12", state="running")
    slurm_says(folder)
    assert state(folder) == ("interrupted", "12", "job 12 ended: gone")


def test_a_job_that_failed_before_it_came_to_write_says_where_to_look(folder: SuiteFolder) -> None:
    known(folder, job="12", state="queued")
    slurm_says(folder, ("12", "FAILED", "a"))
    assert state(folder)[2] == f"job 12 ended: FAILED; see {folder.job_output / '12_0_log.out'}"


def test_where_slurm_does_not_answer_nothing_is_called_dead(folder: SuiteFolder) -> None:
    known(folder, job="12", state="running")  # squeue has nothing to print: it fails
    told = state(folder)
    assert told[:2] == ("running", "12") and "SLURM does not say how the jobs stand" in (told[2] or "")
    with pytest.raises(VlaError, match=r"is on a cluster, in jobs 12 \(SLURM does not say"):
        take_home(folder, read_status(folder))


def test_a_finished_suite_is_read_where_there_is_no_slurm(folder: SuiteFolder) -> None:
    known(folder, job="12", state="running")
    wrote(folder, job="12", state="done")
    assert state(folder) == ("done", "12", None)


def test_the_manifest_lists_the_jobs_of_a_run_in_order(folder: SuiteFolder) -> None:
    folder.path.mkdir()
    folder.manifest.write_text('{"runs": {"a": {}}}')
    for job, node in (("3", None), ("3", "n1"), ("3", None), ("12", None)):
        note_jobs(folder, {"a": status_of(folder, job=job, node=node).runs["a"]})
    assert '"id": "12"' in folder.manifest.read_text() and '"node": "n1"' in folder.manifest.read_text()
    assert folder.manifest.read_text().count('"id"') == 2


def test_accounting_is_asked_for_what_squeue_has_forgotten(folder: SuiteFolder) -> None:
    run = status_of(folder, job="12", state="running").runs["a"]
    assert run_status(folder, "a", run, {}, lambda job: "TIMEOUT").error == "job 12 ended: TIMEOUT"


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("90", 90), ("01:30:00", 90), ("1-12", 2160), ("1-0:0:1", 1441), ("6:30", 7), (7, 7)],
)
def test_time_is_spelt_as_slurm_does(time: str | int, minutes: int) -> None:
    assert SlurmConfig.model_validate({"time": time}).time == minutes


def test_options_of_the_command_line_change_the_suite_file_s() -> None:
    base = SlurmConfig(partition="cpu", extra={"account": "a", "exclusive": True})
    config = with_options(base, ["partition=gpu", "time=2:00:00", "gpus=2", "extra.mail_type=END"])
    assert (config.partition, config.time, config.gpus, config.cpus) == ("gpu", 120, 2, 4)
    assert config.extra == {"account": "a", "exclusive": True, "mail-type": "END"}
    assert _parameters("a", "vla x", config)["additional_parameters"]["mail-type"] == "END"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("partitoin=gpu", "unknown key 'partitoin'; did you mean 'partition'"),
        ("gpus", "is not key=value"),
        ("gpus=many", "'gpus' = 'many' is not valid"),
        ("time=1:2:3:4", "'time' = '1:2:3:4' is not valid: .*d-hh:mm:ss"),
        ("time=2", "'time' = 2 is not valid: .*greater than or equal to 5"),
        ("extra.comment=mine", "'comment' is given by the sweep"),
    ],
)
def test_a_wrong_option_is_refused(option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_options(SlurmConfig(), [option])


def test_options_of_one_launcher_are_not_taken_by_the_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--device and --jobs are for this machine"):
        sweep(tmp_path / "suite.toml", launcher=Launcher.SLURM, jobs=2)
    with pytest.raises(ConfigError, match="--slurm needs --launcher slurm"):
        sweep(tmp_path / "suite.toml", slurm=["gpus=1"])


def test_jobs_of_other_suites_are_not_ours(folder: SuiteFolder) -> None:
    slurm_says(folder, ("12", "RUNNING", "a"))
    assert {name: job.id for name, job in Cluster(folder).jobs().items()} == {"a": "12"}
