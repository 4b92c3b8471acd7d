"""What a job does on its node: one run's training and rollout, by the scheduler that works locally too.

So logs, locks, checkpoints and the ways to end are the same. What the scheduler keeps in `status.json` for
a whole suite it keeps here in the run's own file, which the submitting machine reads.
"""

import os
import platform
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from vla.base.interrupt import Interrupted
from vla.suite.folder import SuiteFolder
from vla.suite.manifest import planned
from vla.suite.scheduler import Scheduler, now
from vla.suite.stage import Stage, stage_of
from vla.suite.status import RunStatus, SuiteStatus, load_status


class JobFolder(SuiteFolder):
    """A suite directory, seen by one job."""

    def __init__(self, path: Path, run: str) -> None:
        super().__init__(path)
        self._run = run

    @property
    def status(self) -> Path:
        return self.job_status(self._run)


class Work:
    """The call that submitit pickles: names only, everything else is read on the node.

    Args:
        suite: the suite directory.
        run: the name of the run.
        device: where it computes.
    """

    def __init__(self, suite: str, run: str, device: str) -> None:
        self._suite, self._run, self._device = suite, run, device
        self._out_of_time = False

    def __call__(self) -> str:
        """Work until the run has all its stages; called again after every requeue.

        Raises:
            SystemExit: it failed, or was stopped; SLURM and submitit are to see that.
        """
        from submitit import JobEnvironment

        folder = JobFolder(Path(self._suite), self._run)
        number = JobEnvironment().job_id
        plan = planned(folder, self._run)

        def next_stage(name: str, run: RunStatus, device: str) -> Stage | None:
            return stage_of(folder, plan, run, device)

        status = SuiteStatus(
            name=self._run,
            updated=now(),
            sweep_pid=os.getpid(),
            runs={self._run: self._begin(folder, number)},
        )
        work = Scheduler(
            folder, status, [self._device], next_stage, lambda status: None, _environment(), who="the job"
        )
        # submitit saves and requeues when this signal comes; not before the training has stopped.
        requeue: Any = signal.signal(signal.SIGUSR2, self._stop_in_time)
        try:
            run = work.run().runs[self._run]
        except Interrupted as stopped:
            if self._out_of_time:
                requeue(signal.SIGUSR2, None)
            raise SystemExit(stopped.exit_code) from None
        if run.state != "done":
            print(f"{run.state}: {run.error}", file=sys.stderr)
            raise SystemExit(1)
        return run.state

    def checkpoint(self) -> Any:
        """Tell submitit what to call when the job comes back: the same; the run knows where it stands."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Work(self._suite, self._run, self._device))

    def _begin(self, folder: JobFolder, number: str) -> RunStatus:
        """Return how the run stands: as its last job left it, or else as the suite has it."""
        suite = SuiteFolder(folder.path)
        known = load_status(folder.status if folder.status.is_file() else suite.status).runs[self._run]
        return known.model_copy(
            update={"state": "queued", "job": number, "node": platform.node(), "device": self._device}
        )

    def _stop_in_time(self, number: int, frame: FrameType | None) -> None:
        self._out_of_time = True
        os.kill(os.getpid(), signal.SIGTERM)  # the scheduler stops the training, as it does for anyone


def _environment() -> dict[str, str]:
    """Return the environment of the commands: as many threads as cores were asked for."""
    environment = dict(os.environ)
    if cores := os.environ.get("SLURM_CPUS_PER_TASK"):
        environment.setdefault("OMP_NUM_THREADS", cores)
    return environment
