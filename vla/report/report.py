"""Write the page of a run or of a suite. What a run lacks is said on its page."""

import html
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vla.base.errors import CheckpointError, VlaError
from vla.base.files import write_atomically
from vla.cache import FeatureCache
from vla.config import read_tables
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.trackers.tracker import read_locations
from vla.report.charts import absent, interval_bars
from vla.report.curves import curves_section
from vla.report.episode import choose_episode, chunks_section, features_section, frames_section
from vla.report.evaluations import (
    latency_section,
    read_evaluations,
    success_row,
    success_section,
    video_section,
)
from vla.report.page import Section, card, folded, render, table
from vla.suite.folder import SuiteFolder
from vla.suite.manifest import read_manifest
from vla.suite.status import read_status

PACKAGES = ("vla", "torch", "transformers", "mujoco", "gymnasium", "numpy")


def report(path: Path, out: Path | None = None) -> dict[str, Any]:
    """Write one self-contained HTML page.

    Args:
        path: a run or a suite.
        out: the page; None is `report.html` in it.

    Raises:
        VlaError: there is neither a run nor a suite.
    """
    if (path / "manifest.json").is_file():
        page = suite_page(SuiteFolder.open(path))
    elif (path / "pipeline.toml").is_file():
        page = run_page(RunDirectory.open(path))
    else:
        raise VlaError(f"no run and no suite at {path}; vla report takes what vla train or vla sweep made")
    target = out or path / "report.html"
    write_atomically(target, page.encode())
    return {"page": str(target), "mib": round(target.stat().st_size / 2**20, 2)}


def run_page(run: RunDirectory) -> str:
    """Build the page of a run."""
    config = read_tables(run.config)
    evaluations = read_evaluations(run.path)
    train, val = read_metrics(run, "train"), read_metrics(run, "val")
    latest = evaluations[-1].info["aggregated"]["pc_success"] if evaluations else None
    best = max((row["avg_reward"] for row in read_metrics(run, "rollout")), default=None)
    facts = {
        "steps": f"{train[-1]['step']}" if train else "0",
        "held-out loss": f"{val[-1]['loss']:.4g}" if val else "not measured",
        "best avg_reward": "not measured" if best is None else f"{best:.2f}",
        "success, latest": "not measured" if latest is None else f"{latest:.0f} %",
    }
    sections = [
        curves_section({run.path.absolute().name: run.path}),
        success_section(evaluations),
        latency_section(evaluations),
        video_section(evaluations),
        *_data_sections(run, config),
        Section(title="Configuration and environment", body=_environment(run, config)),
    ]
    policy = config.get("policy", {})
    head = policy.get("head", {})
    named = head.get("type") if isinstance(head, dict) else head
    subtitle = (
        f"{named or policy.get('type', 'unknown')}, views projected to {policy.get('per_view_dim', '?')}"
    )
    return render(run.path.absolute().name, f"{subtitle} · {run.path}", facts, sections)


def _data_sections(run: RunDirectory, config: dict[str, Any]) -> list[Section]:
    """Build what needs the cache, the demonstrations or the policy; each says why where it cannot be."""
    try:
        cache = FeatureCache(Path(config.get("cache", {}).get("path", "data/features")))
        episode = choose_episode(cache, config.get("train", {}).get("val_episodes", 0))
    except VlaError as error:
        why = absent(f"The feature cache of this run is not there any more: {error}")
        return [Section(title="Cameras, features and action chunks", body=why)]
    return [
        frames_section(cache, episode),
        _or_why("Features", lambda: features_section(cache, episode)),
        _or_why(
            "Action chunks against the demonstration",
            lambda: chunks_section(cache, episode, _policy_for(run, cache)),
        ),
    ]


def _policy_for(run: RunDirectory, cache: FeatureCache) -> Path:
    from vla.policy.saved_policy import read_config

    folder = run.policy_folder()
    config = read_config(folder)
    trained = config.cache_fingerprint
    if cache.metadata.fingerprint not in (trained, *(made.fingerprint for made in config.data)):
        raise CheckpointError(
            f"the policy was trained on cache {trained}, {cache.folder} is {cache.metadata.fingerprint}"
        )
    return folder


def _or_why(title: str, build: Callable[[], Section]) -> Section:
    try:
        return build()
    except (VlaError, OSError) as error:
        return Section(title=title, body=absent(f"Cannot be shown: {error}"))


def _environment(run: RunDirectory, config: dict[str, Any]) -> str:
    versions = [["python", platform.python_version()], *[[name, version(name)] for name in PACKAGES]]
    trackers = [
        [name, place.mode, place.version, place.url or place.path or ""]
        for name, place in read_locations(run.path).items()
    ]
    told = (
        table(["tracker", "mode", "version", "where"], trackers)
        if trackers
        else absent("No tracker is noted for this run.")
    )
    machine = f"Read with these versions on {platform.platform()}."
    return (
        card("trackers", told)
        + folded("pipeline.toml", run.config.read_text())
        + f'<details><summary>Versions</summary><p class="note">{html.escape(machine)}</p>'
        + table(["package", "version"], versions)
        + "</details>"
    )


def suite_page(folder: SuiteFolder) -> str:
    """Build the page of a suite: its runs beside each other."""
    status, manifest = read_status(folder), read_manifest(folder)
    runs = {name: folder.run(name) for name in status.runs}
    rows = [
        [
            name,
            run.state,
            f"{run.step}/{run.steps}",
            run.device or "",
            run.started or "",
            run.finished or "",
            run.error or "",
        ]
        for name, run in status.runs.items()
    ]
    bars = []
    for name, path in runs.items():
        if evaluations := read_evaluations(path):
            bars.append(success_row(name, evaluations[-1].info))
    states = [run.state for run in status.runs.values()]
    sections = [
        Section(
            title="Runs",
            body=table(["run", "state", "step", "device", "started", "finished", "remark"], rows),
        ),
        curves_section(runs),
        Section(
            title="Success",
            note="The latest evaluation of each run.",
            body=card("success rate, Wilson 95 % interval", interval_bars(bars))
            if bars
            else absent("No run of this suite has been rolled out yet."),
        ),
        Section(title="What was asked", body=_asked(folder, manifest)),
    ]
    facts = {
        "runs": str(len(states)),
        "done": str(states.count("done")),
        "running": str(states.count("running")),
        "failed or interrupted": str(states.count("failed") + states.count("interrupted")),
    }
    return render(status.name, f"suite · {folder.path}", facts, sections)


def _asked(folder: SuiteFolder, manifest: dict[str, Any]) -> str:
    import json

    notes = folded("notes.md", folder.notes.read_text()) if folder.notes.is_file() else ""
    return folded("manifest.json", json.dumps(manifest, indent=2)) + notes
