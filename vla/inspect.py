"""Say what a path is: a dataset, a feature cache, a run, or a policy."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.base.errors import VlaError

if TYPE_CHECKING:
    from vla.cache import Statistics
    from vla.embed.datasets import FrameSource
    from vla.embed.datasets.dataset_config import DatasetConfig
    from vla.policy.saved_policy import TrainingData

LOOKED_AT = 50
"""Episodes of a dataset without statistics whose state and action are read."""


def inspect(path: Path, settings: "DatasetConfig | None" = None) -> dict[str, Any]:
    """Describe what lies at a path; the first entry, `kind`, says what it is.

    Args:
        path: of anything that vla makes or reads.
        settings: how a dataset is to be read; its path is `path`.

    Raises:
        VlaError: nothing there is known to vla.
    """
    from vla.embed.datasets.recognise import is_dataset

    if (path / "manifest.json").is_file() and (path / "status.json").is_file():
        return _suite(path)
    if is_dataset(path):
        return _dataset(path, settings)
    if (path / "pipeline.toml").is_file() and (path / "checkpoints").is_dir():
        return _pretraining(path) if (path / "config.json").is_file() else _run(path)
    if (path / "cache.json").is_file() or list(path.glob("*/cache.json")):
        return _cache(path)
    if (path / "config.json").is_file() or (path / "pretrained_model").is_dir():
        return _policy(path)
    if (path / "eval_info.json").is_file():
        return _evaluation(path / "eval_info.json")
    found = "an empty or unknown folder" if path.is_dir() else "a file" if path.exists() else "not there"
    raise VlaError(
        f"{path} is {found}; vla inspect takes a dataset (meta/info.json, *.hdf5, zarr), "
        "a cache (cache.json), a run (pipeline.toml), a suite (manifest.json), a policy (config.json) or an "
        "evaluation (eval_info.json)"
    )


def _evaluation(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_bytes())
        return {"kind": "evaluation", **info["aggregated"], "latency_ms": info["latency_ms"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise VlaError(f"{path} is no evaluation that can be read; run vla rollout again") from error


def _dataset(path: Path, settings: "DatasetConfig | None") -> dict[str, Any]:
    from vla.cache.episodes import texts_of
    from vla.embed.datasets import open_source
    from vla.embed.datasets.dataset_config import DatasetConfig
    from vla.embed.datasets.looking import config_to_look

    config, not_said = config_to_look(settings or DatasetConfig(path=str(path)))
    source, says_fps = open_source(config), "fps" not in not_said
    lengths = [episode.length for episode in source.episodes]
    described = {
        "kind": f"dataset ({source.format})",
        "episodes": len(lengths),
        "frames": sum(lengths),
        "fps": source.fps if says_fps else "not stored",
        "hours": round(sum(lengths) / source.fps / 3600, 3) if says_fps else "not stored",
        "cameras": list(source.camera_names),
        "streams": [f"{s.describe()} from {s.key}" for s in source.streams if s.kind != "image"],
        "tasks": sorted({task for episode in source.episodes for task in texts_of(episode)}),
        **_resting(_statistics(path, source)),
        **({"state": not_said["state_key"]} if "state_key" in not_said else {}),
        **({"remarks": list(source.remarks)} if source.remarks else {}),
    }
    examples = {"fps": "50", "state_key": "NAMES"}
    hint = "".join(f" --set dataset.{key}={examples[key]}" for key in not_said)
    return {**described, "next": f"vla embed --dataset {shlex.quote(str(path))}{hint}"}


def _statistics(path: Path, source: "FrameSource") -> dict[str, "Statistics"]:
    """Return what a dataset says of its state and action itself, else what its first episodes say."""
    from vla.cache import ACTION, STATE, Statistics
    from vla.cache.statistics import vector_statistics

    try:
        told = json.loads((path / "meta/stats.json").read_bytes())
        return {
            name: Statistics(count=told[key]["count"][0], mean=told[key]["mean"], std=told[key]["std"])
            for name in (STATE, ACTION)
            if (key := source.keys.get(name)) in told
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        found = [source.vectors(position) for position in range(min(LOOKED_AT, len(source.episodes)))]
        return {name: vector_statistics([episode[name] for episode in found]) for name in found[0]}


def _resting(statistics: Mapping[str, "Statistics"]) -> dict[str, Any]:
    """Name the dimensions of state and action that rest, if there are any."""
    from vla.cache import ACTION, STATE
    from vla.cache.movement import describe_resting

    lines = list(describe_resting(statistics, (STATE, ACTION)))
    return {"resting": lines} if lines else {}


def _cache(path: Path) -> dict[str, Any]:
    from vla.cache import FeatureCache

    cache = FeatureCache(path)
    metadata = cache.metadata
    return {
        "kind": "feature cache",
        "path": str(cache.folder),
        "fingerprint": metadata.fingerprint,
        "recipe": metadata.recipe or "none, of an earlier format",
        "dataset": metadata.dataset.path,
        "encoder": "; ".join(made.describe() for made in metadata.encoders.values()) or "none",
        "streams": [stream.describe() for stream in metadata.streams],
        **_resting(metadata.statistics),
        "variants": metadata.variants,
        "episodes": len(metadata.episodes),
        "frames": metadata.num_frames,
        "parts": len(metadata.parts),
        "shards": len(cache.files()),
        "texts": (
            f"{len(metadata.tasks)} task texts, {metadata.texts.encoder.feature_dim} values each"
            if metadata.texts
            else "none"
        ),
        "mib": round(sum(file.stat().st_size for file in cache.files() if file.is_file()) / 2**20, 1),
        "format": metadata.format_version,
        "next": f"vla train --cache {shlex.quote(str(cache.folder))}",
    }


def _run(path: Path) -> dict[str, Any]:
    from vla.policy.training.run import RunDirectory
    from vla.policy.training.run_log import read_metrics

    run = RunDirectory.open(path)
    rollouts = read_metrics(run, "rollout")
    losses = read_metrics(run, "train")
    best = max(rollouts, key=lambda row: row["avg_reward"], default=None)
    checkpoints = sorted(p.name for p in (path / "checkpoints").glob("[!.]*"))
    described = {
        "kind": "training run",
        "checkpoints": checkpoints,
        "last_step": run.last_step(),
        "last_loss": losses[-1]["loss"] if losses else None,
        "best_avg_reward": best["avg_reward"] if best else None,
        "best_step": run.best_step(),
    }
    if run.last_step() is not None:
        described |= {f"policy.{k}": v for k, v in _policy(run.policy_folder()).items() if k != "kind"}
    return described


def _pretraining(path: Path) -> dict[str, Any]:
    from vla.policy.training.run import RunDirectory
    from vla.policy.training.run_log import read_metrics

    run = RunDirectory.open(path)
    try:
        looks_at = dict(json.loads((path / "config.json").read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise VlaError(f"{path / 'config.json'} cannot be read ({str(error)[:200]})") from error
    rows = read_metrics(run, "train")
    return {
        "kind": f"pretraining run ({looks_at.pop('model_type', 'unknown')})",
        **looks_at,
        "last_step": run.last_step(),
        **({key: value for key, value in rows[-1].items() if key not in ("step", "kind")} if rows else {}),
        "next": f"vla embed --encoder {shlex.quote(str(path))}",
    }


def _suite(path: Path) -> dict[str, Any]:
    from vla.suite.sweep import sweep_status

    status = sweep_status(path)
    states = {
        name: f"{run['state']}, step {run['step']}/{run['steps']}" for name, run in status["runs"].items()
    }
    return {"kind": "suite", "name": status["name"], **states, "next": f"vla report {shlex.quote(str(path))}"}


def _share(made: "TrainingData") -> str:
    own = ", actions by its own standard (rollout.cache)" if made.action else ""
    return f"{made.cache}: weight {made.weight:g}, {made.num_episodes} episodes of {made.dataset.path}{own}"


def _policy(path: Path) -> dict[str, Any]:
    from vla.policy.agents.policy import load_policy
    from vla.policy.training.run import find_policy
    from vla.policy.trunks.text import name_tasks

    folder = find_policy(path)
    policy = load_policy(folder)
    saved = policy.config
    return {
        "kind": f"policy ({saved.policy.type})",
        "path": str(folder),
        **policy.describe(),
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "streams": [stream.describe() for stream in saved.streams],
        "action": saved.action.describe(),
        "tasks": name_tasks(saved.tasks) if saved.tasks else "told nothing",
        "horizons": [saved.policy.obs_horizon, saved.policy.pred_horizon, saved.policy.num_action_steps],
        "encoder": "; ".join(made.describe() for made in saved.encoders.values()) or "none",
        "cache_fingerprint": saved.cache_fingerprint,
        **({"caches": [_share(made) for made in saved.data]} if len(saved.data) > 1 else {}),
        "next": f"vla rollout {shlex.quote(str(folder))}",
    }
