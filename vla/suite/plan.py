"""Turn a suite file into runs: names, settings, exact commands; all checked before the first one starts."""

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.base.errors import CacheError, ConfigError
from vla.config import PipelineConfig
from vla.suite.config import Settings, SuiteConfig, flatten, label
from vla.suite.folder import SuiteFolder

VLA = [sys.executable, "-m", "vla"]


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One run of a suite."""

    name: str
    settings: Settings
    """What distinguishes it: `[grid]` or `[[run]]` values by dotted key."""
    seed: int
    config: dict[str, Any]
    """The resolved configuration, by dotted key."""
    train: list[str]
    """Command without device; `--resume` is added where the run exists."""
    rollout: list[str] | None


def plan_runs(suite: SuiteConfig, file: Path, folder: SuiteFolder) -> list[RunPlan]:
    """Expand grid, named runs and seeds.

    Args:
        suite: what was asked.
        file: the suite file; `config` is relative to it.
        folder: where the runs go.

    Raises:
        ConfigError: a setting is not valid, or two runs have the same name.
        CacheError: the shared cache is missing, or of another encoder than a run names.
    """
    from vla.cache import FeatureCache
    from vla.matching import of_cache, require_fit

    base = (file.parent / suite.config).resolve()
    shared = suite.cache or PipelineConfig.load(base, {}, []).cache.path
    cache = FeatureCache(Path(shared)).folder.resolve()
    plans: list[RunPlan] = []
    for (name, settings), seed in itertools.product(_points(suite), suite.seeds):
        run = f"{name}-seed{seed}"
        chosen = {**suite.set, **settings}
        given = {"cache.path": str(cache), "train.out": str(folder.run(run)), "train.seed": seed}
        try:
            resolved = PipelineConfig.load(base, {**chosen, **given}, [])
            resolved = of_cache(resolved, FeatureCache(cache))
            require_fit(resolved, FeatureCache(cache))
        except (ConfigError, CacheError) as error:
            raise type(error)(f"run '{run}': {error}") from None
        sets = [f"--set={key}={_toml(value)}" for key, value in chosen.items()]
        common = ["--config", str(base), "--json"]
        paths = ["--cache", str(cache), "--out", str(folder.run(run))]
        # Absolute paths: the commands of the manifest do the same from anywhere.
        train = [*VLA, "train", *common, *paths, "--seed", str(seed), *sets]
        rollout = [*VLA, "rollout", str(folder.run(run)), "--out", str(folder.final_rollout(run)), "--json"]
        config = flatten(resolved.model_dump(mode="json", exclude_none=True))
        plans.append(
            RunPlan(
                name=run,
                settings=settings,
                seed=seed,
                config=config,
                train=train,
                rollout=rollout if suite.rollout else None,
            )
        )
    names = [plan.name for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{file}: two runs are called '{name}'; name them apart, or drop equal values")
    return plans


def _points(suite: SuiteConfig) -> Iterator[tuple[str, Settings]]:
    """Yield the name and settings of each combination and each named run, seeds aside."""
    if suite.grid:
        for values in itertools.product(*suite.grid.values()):
            settings = dict(zip(suite.grid, values, strict=True))
            parts = [f"{key.split('.')[-1]}-{label(value)}" for key, value in settings.items()]
            yield "-".join(parts), settings
    for run in suite.run:
        yield run.name, run.set
    if not suite.grid and not suite.run:
        yield suite.name, {}


def _toml(value: Any) -> str:
    """Spell a value as `--set` reads it; JSON's spelling of these is TOML's too."""
    return json.dumps(value)
