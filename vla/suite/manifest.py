"""What a suite was asked to do: `manifest.json`."""

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vla.base.errors import VlaError
from vla.base.files import write_json
from vla.suite.config import SuiteConfig
from vla.suite.folder import SuiteFolder
from vla.suite.plan import RunPlan

PACKAGES = ("vla", "torch", "transformers", "mujoco", "gymnasium", "numpy")
WHERE_NOT_WHAT = {"train.device", "encoder.device"}


def write_manifest(folder: SuiteFolder, suite: SuiteConfig, file: Path, plans: Sequence[RunPlan]) -> None:
    """Write the manifest; runs that exist must be asked for as they were started.

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


def _require_same(folder: SuiteFolder, plan: RunPlan, started: dict[str, Any]) -> None:
    for key in sorted((started.keys() | plan.config.keys()) - WHERE_NOT_WHAT):
        if started.get(key) != plan.config.get(key):
            raise VlaError(
                f"run '{plan.name}' in {folder.path} was started with {key} = {started.get(key)!r}, now "
                f"{plan.config.get(key)!r} is asked; choose another --out, or remove {folder.run(plan.name)}"
            )
