"""Run a suite: plan, check, lock, schedule, write down.

Run again after any interruption, it goes on: finished runs are skipped.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla.base.errors import ConfigError, VlaError
from vla.base.files import remove_leftovers
from vla.base.lock import exclusive
from vla.suite.config import read_suite
from vla.suite.devices import child_environment, choose_slots
from vla.suite.folder import SuiteFolder
from vla.suite.launcher import Launcher
from vla.suite.manifest import note_jobs, write_manifest
from vla.suite.notes import write_notes
from vla.suite.plan import RunPlan, plan_runs
from vla.suite.scheduler import Scheduler, now
from vla.suite.slurm.options import SlurmConfig, with_options
from vla.suite.stage import Stage, stage_of
from vla.suite.status import RunStatus, SuiteStatus, read_status, write_status


def sweep(
    file: Path,
    *,
    out: Path | None = None,
    devices: Sequence[str] = (),
    jobs: int | None = None,
    launcher: Launcher = Launcher.LOCAL,
    slurm: Sequence[str] = (),
) -> dict[str, Any]:
    """Train, and roll out if asked, every run of a suite file that is not finished.

    Args:
        file: the suite file.
        out: suite directory; None takes the file's, or else runs/<name>.
        devices: instead of the file's.
        jobs: runs side by side on each device, instead of the file's.
        launcher: where the runs go: to this machine's devices, or a job each to a SLURM cluster.
        slurm: `key=value` each, instead of the file's [slurm].

    Returns:
        Where the suite lies and the state of each run.

    Raises:
        ConfigError: the suite file or a run's configuration is not valid; nothing was started.
        CacheError: the shared cache is missing or another encoder's.
        VlaError: another sweep works there, a run was started with other settings, or some runs failed
            (after all others have ended).
        Interrupted: a signal came; here the runs were stopped first, jobs on a cluster go on.
    """
    if launcher is Launcher.SLURM and (devices or jobs):
        raise ConfigError("--device and --jobs are for this machine; a cluster is asked by --slurm gpus=1")
    if launcher is Launcher.LOCAL and slurm:
        raise ConfigError("--slurm needs --launcher slurm")
    suite = read_suite(file)
    folder = SuiteFolder(out or suite_directory(file))
    suite = suite.model_copy(update={"slurm": with_options(suite.slurm, slurm)})
    slots = choose_slots(devices or suite.devices, jobs or suite.jobs) if launcher is Launcher.LOCAL else []
    plans = plan_runs(suite, file, folder)
    with exclusive(folder.path):
        remove_leftovers(folder.path)
        status = begin(folder, suite.name, plans)
        if launcher is Launcher.LOCAL:
            take_home(folder, status)
        write_manifest(folder, suite, file, plans, launcher)
        status = _here(folder, status, plans, slots) if slots else _on_slurm(folder, status, suite.slurm)
    failed = {name: run for name, run in status.runs.items() if run.state != "done"}
    if failed:
        name, run = next(iter(failed.items()))
        raise VlaError(
            f"{len(failed)} of {len(status.runs)} runs did not finish; '{name}' {run.state}: {run.error} "
            f"(log: {run.log}); mend it and run the same command again"
        )
    return summary(folder, status)


def _here(
    folder: SuiteFolder, status: SuiteStatus, plans: Sequence[RunPlan], slots: Sequence[str]
) -> SuiteStatus:
    by_name = {plan.name: plan for plan in plans}

    def next_stage(name: str, run: RunStatus, device: str) -> Stage | None:
        return stage_of(folder, by_name[name], run, device)

    scheduler = Scheduler(
        folder, status, slots, next_stage, lambda now: write_notes(folder, now), child_environment(slots)
    )
    return scheduler.run()


def _on_slurm(folder: SuiteFolder, status: SuiteStatus, config: SlurmConfig) -> SuiteStatus:
    from vla.suite.slurm.watch import Watch

    status = Watch(folder, status, config, lambda now: write_notes(folder, now)).run()
    write_notes(folder, status)
    return status


def take_home(folder: SuiteFolder, status: SuiteStatus) -> None:
    """Let this machine go on with a suite that was on a cluster; of jobs that may live it is not taken.

    Raises:
        VlaError: a job may be at work.
    """
    alive = [run for run in status.runs.values() if run.job and run.state in ("queued", "running")]
    if alive:
        numbers = " ".join(str(run.job) for run in alive)
        reason = f" ({alive[0].error})" if alive[0].error else ""
        raise VlaError(
            f"{folder.path} is on a cluster, in jobs {numbers}{reason}; go on with --launcher slurm, or end "
            f"them first: scancel {numbers}"
        )
    for name in status.runs:
        folder.job_status(name).unlink(missing_ok=True)


def begin(folder: SuiteFolder, name: str, plans: Sequence[RunPlan]) -> SuiteStatus:
    """Return the status to start from: what an earlier sweep left, corrected, and new runs queued."""
    earlier = read_status(folder).runs if folder.status.is_file() else {}
    runs = {}
    for plan in plans:
        run = RunStatus(
            steps=plan.config["train.steps"],
            log=str(folder.log(plan.name)),
            run=str(folder.run(plan.name)),
        )
        known = earlier.get(plan.name)
        at_work = known and (known.state == "running" or (known.job and known.state == "queued"))
        if known and (folder.run(plan.name).is_dir() or at_work):
            run = known.model_copy(update={"steps": run.steps, "log": run.log, "run": run.run})
            if run.state == "done" and plan.rollout and "rollout" not in run.completed:
                run = run.model_copy(update={"state": "queued"})  # asked for since
        else:
            folder.job_status(plan.name).unlink(missing_ok=True)  # of a run that was removed
        runs[plan.name] = run
    return SuiteStatus(name=name, updated=now(), sweep_pid=os.getpid(), runs=runs)


def sweep_status(path: Path) -> dict[str, Any]:
    """Return the true state of a suite; where no sweep works on it, `status.json` is corrected too.

    Args:
        path: a suite directory.

    Raises:
        VlaError: there is none.
    """
    folder = SuiteFolder.open(path)
    try:
        with exclusive(folder.path):  # read inside: a sweep that ends meanwhile knows better
            status = read_status(folder)
            write_status(folder, status)
            note_jobs(folder, status.runs)
    except VlaError:
        status = read_status(folder)  # a sweep is at work and writes its own, or there is no room to
    return summary(folder, status)


def summary(folder: SuiteFolder, status: SuiteStatus) -> dict[str, Any]:
    """Sum up a suite for people and programs."""
    return {
        "suite": str(folder.path),
        "name": status.name,
        "runs": {name: run.model_dump(mode="json") for name, run in status.runs.items()},
        "notes": str(folder.notes),
    }


def suite_directory(path: Path) -> Path:
    """Return the suite directory that a path means: the one itself, or that of a suite file."""
    if path.is_dir():
        return path
    suite = read_suite(path)
    return Path(suite.out or f"runs/{suite.name}")
