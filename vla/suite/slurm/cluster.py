"""What SLURM is told, and asked: jobs are submitted by submitit and looked up with SLURM's own commands.

submitit itself asks `sacct` alone, which many clusters do not keep, and knows only jobs that it was told to
have started. Here a job says whose it is by its comment, so that also those are found whose submitter was
killed before it could write down their number.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.base.errors import MissingPackageError, VlaError
from vla.suite.folder import SuiteFolder
from vla.suite.slurm.options import SlurmConfig

MARK = "vla "
"""Begins the comment of a job; the path of its run follows."""
ASK_S = 60
"""SLURM is slow to answer where it is busy, not dead."""
NOTICE_S = 90
"""So long before its time limit a job is told of it: time to finish a step and to save."""
MOST_TIMEOUTS = 100
"""After so many time limits a run is not put into the queue again."""
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}


@dataclass(frozen=True)
class Job:
    """What SLURM says of one job."""

    id: str
    state: str
    """SLURM's word."""
    node: str | None

    @property
    def is_alive(self) -> bool:
        """Whether it may run, or run again: also where SLURM has a word that is not known here."""
        return self.state not in ENDED

    @property
    def is_waiting(self) -> bool:
        return self.state in WAITING


class Cluster:
    """SLURM, as far as one suite is concerned.

    Args:
        folder: the suite directory.
    """

    def __init__(self, folder: SuiteFolder) -> None:
        self._folder = folder

    def jobs(self) -> dict[str, Job]:
        """Return the newest job of each run that SLURM remembers: all that live, and some that have ended.

        Raises:
            VlaError: SLURM does not answer.
        """
        found: dict[str, Job] = {}
        listing = _ask("squeue", "--noheader", "--me", "--states=all", "--format=%i|%T|%N|%k")
        for line in listing.splitlines():
            number, state, node, comment = line.split("|", 3)
            name = self._run_of(comment)
            if name and number.isdigit() and int(number) >= int(found[name].id if name in found else 0):
                found[name] = Job(number, state, node or None)
        return found

    def end_of(self, job: str) -> str:
        """Return the state in which a job ended that `squeue` has forgotten; empty if SLURM does not say."""
        try:
            return _ask("sacct", "-n", "-P", "-X", "-j", job, "-o", "State").strip().partition(" ")[0]
        except VlaError:
            return ""  # no accounting

    def submit(self, name: str, config: SlurmConfig) -> str:
        """Submit a job for a run; return its number.

        Raises:
            MissingPackageError: submitit is not installed.
            VlaError: SLURM refuses it.
        """
        try:
            from submitit import SlurmExecutor
            from submitit.core.utils import FailedJobError, FailedSubmissionError
        except ImportError:
            raise MissingPackageError("submitit", "slurm") from None
        from vla.suite.slurm.job import Work

        executor = SlurmExecutor(self._folder.job_output, max_num_timeout=MOST_TIMEOUTS)
        executor.update_parameters(**_parameters(name, self._comment(name), config))
        work = Work(str(self._folder.path), name, "cuda" if config.gpus else "cpu")
        try:
            return str(executor.submit(work).job_id)
        except (FailedJobError, FailedSubmissionError) as error:
            said = [line for line in str(error).splitlines() if "error:" in line] or ["sbatch failed"]
            raise VlaError(
                f"SLURM refuses run '{name}' ({said[0]}); mend [slurm] of the suite file or give "
                "--slurm key=value, and run the same command again"
            ) from error

    def _comment(self, name: str) -> str:
        return f"{MARK}{self._folder.run(name)}"

    def _run_of(self, comment: str) -> str | None:
        run = Path(comment.removeprefix(MARK))
        ours = comment.startswith(MARK) and run == self._folder.run(run.name)
        return run.name if ours else None


def require_slurm() -> None:
    """Refuse a machine that cannot submit jobs.

    Raises:
        VlaError: it has no `sbatch`, `srun` or `squeue`.
    """
    for command in ("sbatch", "srun", "squeue"):
        if shutil.which(command) is None:
            raise VlaError(
                f"'{command}' is not on this machine; run vla sweep on a login node of the cluster"
            )


def _parameters(name: str, comment: str, config: SlurmConfig) -> dict[str, Any]:
    """Return submitit's names for what is asked."""
    asked = {
        "partition": config.partition or None,
        "gpus_per_node": config.gpus or None,
        "mem": f"{round(config.memory * 1024)}M" if config.memory else None,
    }
    return {
        "job_name": name,
        "comment": comment,
        "time": config.time,
        "cpus_per_task": config.cpus,
        "srun_args": [f"--cpus-per-task={config.cpus}"],  # which srun does not take from sbatch since 22.05
        "ntasks_per_node": 1,
        "signal_delay_s": NOTICE_S,
        "stderr_to_stdout": True,
        "setup": list(config.setup),
        # A job that was preempted, or whose node failed, comes back under its number; and appends.
        "additional_parameters": {"requeue": True, **config.extra},
        **{key: value for key, value in asked.items() if value is not None},
    }


def _ask(*command: str) -> str:
    with _answering(command[0]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout


@contextmanager
def _answering(command: str) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VlaError(
            f"SLURM does not say how the jobs stand ({error}); try again where `{command}` works"
        ) from error
