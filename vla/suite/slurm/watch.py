"""Submit a suite's runs to SLURM, and keep manifest, status and notes true until all have ended.

The jobs are SLURM's: whatever happens to this process or its machine, they go on. Started again it finds
them, and submits only what neither lives nor is done.
"""

import os
import time
from collections.abc import Callable

from vla.base.errors import VlaError
from vla.base.interrupt import Signals, deferred
from vla.base.progress import say
from vla.suite.folder import SuiteFolder
from vla.suite.lifeline import holder, is_alive
from vla.suite.manifest import note_jobs
from vla.suite.scheduler import now
from vla.suite.slurm.cluster import Cluster, Job, require_slurm
from vla.suite.slurm.job_status import run_status
from vla.suite.slurm.options import SlurmConfig
from vla.suite.status import SuiteStatus, write_status

TICK_S = 0.2


class Watch:
    """Works through the runs of a suite, a job a run.

    Args:
        folder: the suite directory; its lock is held.
        status: all runs; those that are done are left alone.
        config: what each job asks for.
        on_change: called whenever a run starts or ends.
    """

    def __init__(
        self,
        folder: SuiteFolder,
        status: SuiteStatus,
        config: SlurmConfig,
        on_change: Callable[[SuiteStatus], None],
    ) -> None:
        self._folder, self._config, self._on_change = folder, config, on_change
        self._cluster, self._name, self._runs = Cluster(folder), status.name, dict(status.runs)
        self._open = [name for name, run in self._runs.items() if run.state != "done"]

    @property
    def status(self) -> SuiteStatus:
        return SuiteStatus(name=self._name, updated=now(), sweep_pid=os.getpid(), runs=dict(self._runs))

    def run(self) -> SuiteStatus:
        """Submit what is needed, and watch until every job has ended.

        Raises:
            VlaError: SLURM does not answer at the start, or refuses a job; those that were submitted go on.
            Interrupted: a signal came; the jobs go on.
        """
        require_slurm()
        with deferred() as signals:
            jobs = self._cluster.jobs()
            for name in self._open:
                signals.stop_if_asked(self._kept())
                self._submit(name, jobs)
            self._look(self._cluster.jobs())
            while any(self._runs[name].state in ("queued", "running") for name in self._open):
                self._sleep(signals)
                try:
                    self._look(self._cluster.jobs())
                except VlaError as error:  # a controller that restarts is nothing to end for
                    say(f"{error}; asking again")
        return self.status

    def _submit(self, name: str, jobs: dict[str, Job]) -> None:
        """Submit a job for a run, unless one lives, and write down which."""
        run = self._runs[name]
        if name in jobs and jobs[name].is_alive:
            self._runs[name] = run_status(self._folder, name, run, jobs, self._cluster.end_of)
        else:
            if is_alive(self._folder.lock(name)):
                pid = holder(self._folder.lock(name))
                raise VlaError(f"run '{name}' is at work here, in process {pid}; wait for it, or stop it")
            # SLURM may start the job at once: it goes on from this, and not from what an earlier job wrote.
            write_status(self._folder, self.status)
            self._folder.job_status(name).unlink(missing_ok=True)
            number = self._cluster.submit(name, self._config)
            fresh = {"state": "queued", "job": number, "node": None, "pid": None, "error": None}
            self._runs[name] = run.model_copy(update={**fresh, "finished": None, "exit_code": None})
        self._write()

    def _look(self, jobs: dict[str, Job]) -> None:
        before = {name: self._runs[name].state for name in self._open}
        for name in self._open:
            self._runs[name] = run_status(self._folder, name, self._runs[name], jobs, self._cluster.end_of)
        self._write()
        if before != {name: self._runs[name].state for name in self._open}:
            self._on_change(self.status)

    def _write(self) -> None:
        write_status(self._folder, self.status)
        note_jobs(self._folder, self._runs)

    def _sleep(self, signals: Signals) -> None:
        until = time.monotonic() + self._config.poll_s
        while time.monotonic() < until:
            signals.stop_if_asked(self._kept())
            time.sleep(TICK_S)

    def _kept(self) -> str:
        alive = [
            str(run.job) for run in self._runs.values() if run.job and run.state in ("queued", "running")
        ]
        return f"the jobs go on (to stop them: scancel {' '.join(alive)})" if alive else "no job is at work"
