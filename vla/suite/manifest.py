"""What a suite was asked to do: `manifest.json`."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vla.base.errors import VlaError, nearest
from vla.base.files import write_json
from vla.suite.config import SuiteConfig
from vla.suite.folder import SuiteFolder
from vla.suite.launcher import Launcher
from vla.suite.plan import RunPlan
from vla.suite.status import RunStatus

PACKAGES = ("vla", "torch", "transformers", "mujoco", "gymnasium", "numpy")
WHERE_NOT_WHAT = {"train.device", "encoder.device"}


def write_manifest(
    folder: SuiteFolder,
    suite: SuiteConfig,
    file: Path,
    plans: Sequence[RunPlan],
    launcher: Launcher = Launcher.LOCAL,
) -> None:
    """Write the manifest; runs that exist must be asked for as they were started.

    Args:
        folder: the suite directory.
        suite: what was asked.
        file: where it was read.
        plans: the runs.
        launcher: who starts them.

    Raises:
        VlaError: a run was started with another configuration.
    """
    earlier = read_manifest(folder) if folder.manifest.is_file() else {"runs": {}}
    for plan in plans:
        if plan.name in earlier["runs"] and folder.run(plan.name).exists():
            _require_same(folder, plan, earlier["runs"][plan.name]["config"])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = {
        "name": suite.name,
        "created": earlier.get("created", now),
        "updated": now,
        "suite_file": str(file.resolve()),
        "suite": suite.model_dump(mode="json"),
        "launcher": launcher.value,
        "working_directory": str(Path.cwd()),
        "seeds": list(suite.seeds),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {"host": platform.node(), "system": platform.platform()},
        "runs": {
            plan.name: {
                "settings": plan.settings,
                "seed": plan.seed,
                "train": plan.train,
                "rollout": plan.rollout,
                "config": plan.config,
                "jobs": earlier["runs"].get(plan.name, {}).get("jobs", []),
            }
            for plan in plans
        },
    }
    write_json(folder.manifest, manifest)


def read_manifest(folder: SuiteFolder) -> dict[str, Any]:
    """Read the manifest.

    Raises:
        VlaError: it is not readable.
    """
    try:
        manifest = json.loads(folder.manifest.read_bytes())
        manifest["runs"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VlaError(f"{folder.manifest} cannot be read ({error}); choose another --out") from error
    return dict(manifest)


def planned(folder: SuiteFolder, name: str) -> RunPlan:
    """Return a run as it was planned.

    Raises:
        VlaError: the manifest is not readable, or has no such run.
    """
    runs = read_manifest(folder)["runs"]
    if name not in runs:
        raise VlaError(f"{folder.manifest} has no run '{name}'; {nearest(name, runs)}")
    asked = runs[name]
    return RunPlan(
        name=name, **{key: asked[key] for key in ("settings", "seed", "config", "train", "rollout")}
    )


def note_jobs(folder: SuiteFolder, runs: Mapping[str, RunStatus]) -> None:
    """Note which jobs of a cluster worked on each run, and where, in order."""
    manifest = read_manifest(folder)
    before = json.dumps(manifest)
    for name, run in runs.items():
        jobs = manifest["runs"][name].setdefault("jobs", [])
        if run.job is not None:
            job = {"id": run.job, "node": run.node}
            same = bool(jobs) and jobs[-1]["id"] == run.job
            if (same and run.node is not None) or not same:
                jobs[len(jobs) - same :] = [job]
    if json.dumps(manifest) != before:
        write_json(folder.manifest, manifest)


def _require_same(folder: SuiteFolder, plan: RunPlan, started: dict[str, Any]) -> None:
    for key in sorted((started.keys() | plan.config.keys()) - WHERE_NOT_WHAT):
        if started.get(key) != plan.config.get(key):
            raise VlaError(
                f"run '{plan.name}' in {folder.path} was started with {key} = {started.get(key)!r}, now "
                f"{plan.config.get(key)!r} is asked; choose another --out, or remove {folder.run(plan.name)}"
            )
