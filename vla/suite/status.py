"""The state of every run of a suite, as it is, not as it was last written: `status.json`.

    queued -> running -> done | failed | interrupted

A run that is written down as running and whose process is gone is interrupted. A failed or interrupted
run goes on when the sweep is run again.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from vla.base.errors import VlaError
from vla.base.files import write_json
from vla.base.strict import StrictModel, explain
from vla.suite.folder import SuiteFolder
from vla.suite.lifeline import holder, is_alive

MEND = "remove it and run the sweep again: what is finished is looked at again, not trained again"
State = Literal["queued", "running", "done", "failed", "interrupted"]


class RunStatus(StrictModel):
    """One run."""

    state: State = "queued"
    stage: Literal["train", "rollout"] = "train"
    """What it does, or did last."""
    completed: tuple[str, ...] = ()
    """Stages whose command has been seen to end well."""
    step: int = 0
    """Last step that was logged."""
    steps: int
    pid: int | None = None
    """Of the running process, or of the last one."""
    device: str | None = None
    job: str | None = None
    """On a cluster: its number there."""
    node: str | None = None
    """On a cluster: where it runs, or ran last."""
    log: str
    run: str
    trackers: dict[str, str] = Field(default_factory=dict)
    """URL or path by tracker."""
    started: str | None = None
    """UTC, ISO 8601; of the latest start."""
    finished: str | None = None
    exit_code: int | None = None
    """Negative for a signal; None if nobody saw the process end."""
    error: str | None = None


class SuiteStatus(StrictModel):
    """The whole of `status.json`."""

    name: str
    updated: str
    sweep_pid: int
    """Of the sweep that wrote this; whether it lives is asked of the lock of the suite directory."""
    runs: dict[str, RunStatus]


def read_status(folder: SuiteFolder) -> SuiteStatus:
    """Read `status.json` and correct it by what is true now, here or on the cluster.

    Raises:
        VlaError: it is missing or not of the right form.
    """
    status = load_status(folder.status)
    if any(run.job for run in status.runs.values()) or any(
        folder.job_status(n).is_file() for n in status.runs
    ):
        from vla.suite.slurm.job_status import cluster_status

        return status.model_copy(update={"runs": cluster_status(folder, status.runs)})
    runs = {name: corrected(folder, name, run) for name, run in status.runs.items()}
    return status.model_copy(update={"runs": runs})


def load_status(path: Path) -> SuiteStatus:
    """Read a status as it was written.

    Raises:
        VlaError: it is missing or not of the right form.
    """
    try:
        return SuiteStatus.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        raise VlaError(f"{path}: {explain(error, SuiteStatus)}; {MEND}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise VlaError(f"{path} cannot be read ({error}); {MEND}") from error


def corrected(folder: SuiteFolder, name: str, run: RunStatus) -> RunStatus:
    """Return a run's status with process, step and trackers as they are now."""
    lock = folder.lock(name)
    changes: dict[str, object] = {
        "step": last_step(folder.run(name)),
        "trackers": trackers_of(folder.run(name)),
    }
    if is_alive(lock):
        # Also where the sweep was killed before it could write this down.
        changes |= {"state": "running", "pid": holder(lock), "finished": None, "exit_code": None}
    elif run.state == "running":
        changes |= {"state": "interrupted", "error": "its process is gone"}
    return run.model_copy(update=changes)


def write_status(folder: SuiteFolder, status: SuiteStatus) -> None:
    """Write `status.json` atomically."""
    write_json(folder.status, status.model_dump(mode="json"))


def last_step(run: Path) -> int:
    """Return the last step in a run's `metrics.jsonl`, reading its end alone; 0 before the first."""
    try:
        with (run / "metrics.jsonl").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 8192))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, TypeError, KeyError):
            continue  # torn, or cut by the seek
    return 0


def trackers_of(run: Path) -> dict[str, str]:
    """Return the URL, or else the path, of each tracker that a run reports to."""
    try:
        noted = json.loads((run / "trackers.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: entry.get("url") or entry.get("path") or "" for name, entry in noted.items()}
