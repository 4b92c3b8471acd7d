"""Run a suite: plan, check, lock, schedule, write down.

Run again after any interruption, it goes on: finished runs are skipped.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla.base.errors import VlaError
from vla.base.files import remove_leftovers
from vla.base.lock import exclusive
from vla.suite.config import read_suite
from vla.suite.devices import child_environment, choose_slots
from vla.suite.folder import SuiteFolder
from vla.suite.manifest import write_manifest
from vla.suite.notes import write_notes
from vla.suite.plan import RunPlan, plan_runs
from vla.suite.scheduler import Scheduler, Stage, now
from vla.suite.status import RunStatus, SuiteStatus, read_status, write_status


def sweep(
    file: Path, *, out: Path | None = None, devices: Sequence[str] = (), jobs: int | None = None
) -> dict[str, Any]:
    """Train, and roll out if asked, every run of a suite file that is not finished.

    Args:
        file: the suite file.
        out: suite directory; None takes the file's, or else runs/<name>.
        devices: instead of the file's.
        jobs: runs side by side on each device, instead of the file's.

    Returns:
        Where the suite lies and the state of each run.

    Raises:
        ConfigError: the suite file or a run's configuration is not valid; nothing was started.
        CacheError: the shared cache is missing or another encoder's.
        VlaError: another sweep works there, a run was started with other settings, or some runs failed
            (after all others have ended).
        Interrupted: a signal came; the runs were stopped first.
    """
    suite = read_suite(file)
    folder = SuiteFolder(out or suite_directory(file))
    slots = choose_slots(devices or suite.devices, jobs or suite.jobs)
    plans = plan_runs(suite, file, folder)
    with exclusive(folder.path):
        remove_leftovers(folder.path)
        write_manifest(folder, suite, file, plans)
        by_name = {plan.name: plan for plan in plans}

        def next_stage(name: str, run: RunStatus, device: str) -> Stage | None:
            return stage_of(folder, by_name[name], run, device)

        status = begin(folder, suite.name, plans)
        scheduler = Scheduler(
            folder, status, slots, next_stage, lambda now: write_notes(folder, now), child_environment(slots)
        )
        status = scheduler.run()
    failed = {name: run for name, run in status.runs.items() if run.state != "done"}
    if failed:
        name, run = next(iter(failed.items()))
        raise VlaError(
            f"{len(failed)} of {len(status.runs)} runs did not finish; '{name}' {run.state}: {run.error} "
            f"(log: {run.log}); mend it and run the same command again"
        )
    return summary(folder, status)


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
        if known and (folder.run(plan.name).is_dir() or known.state == "running"):
            run = known.model_copy(update={"steps": run.steps, "log": run.log, "run": run.run})
            if run.state == "done" and plan.rollout and "rollout" not in run.completed:
                run = run.model_copy(update={"state": "queued"})  # asked for since
        runs[plan.name] = run
    return SuiteStatus(name=name, updated=now(), sweep_pid=os.getpid(), runs=runs)


def stage_of(folder: SuiteFolder, plan: RunPlan, run: RunStatus, device: str) -> Stage | None:
    """Return what a run needs next: training, from its last checkpoint if it has one, then a rollout."""
    directory = folder.run(plan.name)
    if "train" not in run.completed:
        resume = ["--resume"] if (directory / "pipeline.toml").is_file() else []
        # The encoder of validation rollouts goes beside the policy, not to the first GPU.
        where = ["--device", device, f"--set=encoder.device={device}"]
        return "train", [*plan.train, *where, *resume]
    if plan.rollout and not (folder.final_rollout(plan.name) / "eval_info.json").is_file():
        return "rollout", [*plan.rollout, "--device", device]
    return None


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
