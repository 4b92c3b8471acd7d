"""How a run on a cluster stands: what SLURM says of its job, and what the job has written.

SLURM knows whether a job lives; only the job knows what it has done, and it writes that down before it
ends. Each is believed in its own matter, so that nobody has to be at work for the status to be true.
"""

from collections.abc import Callable, Mapping

from vla.base.errors import VlaError
from vla.suite.folder import SuiteFolder
from vla.suite.slurm.cluster import Cluster, Job
from vla.suite.status import RunStatus, corrected, last_step, load_status, trackers_of

FINAL = ("done", "failed", "interrupted")


def cluster_status(folder: SuiteFolder, runs: Mapping[str, RunStatus]) -> dict[str, RunStatus]:
    """Correct the runs of a suite by what is true now; SLURM is asked only where there is doubt.

    Where it cannot be asked, on another machine say, the runs in doubt say so.
    """
    cluster = Cluster(folder)
    jobs: dict[str, Job] = {}
    silent = None
    if any(_with_own(folder, name, run).state not in ("done", "failed") for name, run in runs.items()):
        try:
            jobs = cluster.jobs()
        except VlaError as error:
            silent = str(error)
    if silent is None:
        return {name: run_status(folder, name, run, jobs, cluster.end_of) for name, run in runs.items()}
    found = {name: _with_own(folder, name, run) for name, run in runs.items()}
    return {
        name: run if run.state in FINAL or run.job is None else run.model_copy(update={"error": silent})
        for name, run in found.items()
    }


def run_status(
    folder: SuiteFolder, name: str, run: RunStatus, jobs: Mapping[str, Job], end_of: Callable[[str], str]
) -> RunStatus:
    """Return how a run stands.

    Args:
        folder: the suite directory.
        name: of the run.
        run: as it was last known.
        jobs: what SLURM says now, by run.
        end_of: how a job ended that is not among them.
    """
    run = _with_own(folder, name, run)
    job = jobs.get(name)
    if job is not None and (run.job is None or int(job.id) >= int(run.job)):
        if job.id != run.job:  # it has not come to write anything; what was, was another's
            run = run.model_copy(update={"job": job.id, "node": None, "pid": None, "state": "queued"})
        ended = None if job.is_alive else job.state
    else:
        job, ended = None, ""
    if run.job is None:
        return corrected(folder, name, run)  # never on the cluster
    if job is not None and ended is None:
        state = "queued" if job.is_waiting else "running"
        changes = {"state": state, "node": job.node or run.node, "error": None}
        return run.model_copy(update={**changes, "finished": None, "exit_code": None})
    if run.state in FINAL:
        return run
    end = ended or end_of(run.job) or "gone"
    if end == "COMPLETED":  # the job's last words are on their way, through a network file system
        return run.model_copy(update={"state": "done", "error": None})
    if end in ("FAILED", "BOOT_FAIL"):
        log = folder.job_output / f"{run.job}_0_log.out"
        return run.model_copy(update={"state": "failed", "error": f"job {run.job} ended: {end}; see {log}"})
    return run.model_copy(update={"state": "interrupted", "error": f"job {run.job} ended: {end}"})


def _with_own(folder: SuiteFolder, name: str, run: RunStatus) -> RunStatus:
    """Return a run's status with what its newest job has written, and with step and trackers of its files."""
    path = folder.job_status(name)
    if path.is_file():
        own = load_status(path).runs[name]
        if run.job is None or int(own.job or 0) >= int(run.job):
            run = own.model_copy(update={"steps": run.steps, "log": run.log, "run": run.run})
        else:
            run = run.model_copy(update={"completed": own.completed})
    return run.model_copy(
        update={"step": last_step(folder.run(name)), "trackers": trackers_of(folder.run(name))}
    )
