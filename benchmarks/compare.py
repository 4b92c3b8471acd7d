"""Compare policies: the same demonstrations, steps and environment seeds, several training seeds.

Results go into one JSON file after every evaluation; a comparison that is stopped goes on where it was, and
several processes may each take some of the seeds.
"""

import argparse
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch
from comparison_table import comparison_table, identity
from machine import machine
from measure import rounded, take_turns

from vla import stages
from vla.base.files import write_json
from vla.cache import FeatureCache
from vla.config import PipelineConfig
from vla.policy.agents.policy import Policy
from vla.policy.training.checkpoint import load_trained
from vla.policy.training.run import RunDirectory
from vla.policy.training.train import train
from vla.rollout.evaluate.evaluate import evaluate
from vla.rollout.live import LivePolicy, load_encoder

LATENCY_ROUNDS = 30
DEMO = Path("examples/demo.toml")


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    settings: Sequence[str]
    """`--set` arguments."""
    num_steps: Sequence[int] = field(default=(1,))
    """Sampling steps to evaluate with."""
    timed: Sequence[int] = ()
    """Sampling steps to time the head with; the same if empty."""


def run_comparison(description: str | None, name: str, variants: Sequence[Variant]) -> None:
    """Do what a comparison's command line asks for.

    Args:
        description: the benchmark's docstring.
        name: of the result file and the folder of runs; another configuration's than the demo's is added.
        variants: all there are.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=DEMO)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training")
    parser.add_argument(
        "--episodes", type=int, default=50, help="an evaluation; seeds as in the configuration"
    )
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--work", type=Path, help=f"folder of runs; runs/benchmark-{name} or so")
    parser.add_argument("--out", type=Path, help=f"benchmarks/results/{name}.json or so")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table")
    arguments = parser.parse_args()
    task = name if arguments.config == DEMO else f"{name}-{arguments.config.stem}"
    work = arguments.work or Path(f"runs/benchmark-{task}")
    out = arguments.out or Path(f"benchmarks/results/{task}.json")
    comparison = Comparison(arguments.config, work, out, arguments.set)
    if not arguments.table:
        chosen = [v for v in variants if not arguments.only or v.name in arguments.only]
        for seed in arguments.seeds:  # seed by seed, so that a stopped comparison is a fair one
            for variant in chosen:
                comparison.run(variant, seed, arguments.episodes)
        comparison.measure_latency(chosen, arguments.seeds[0])
    print(comparison.table())


class Comparison:
    """Train and evaluate variants.

    Args:
        config: the configuration that variants change.
        work: folder for runs and evaluations.
        results: the JSON file.
        base: `--set` arguments of all variants.
    """

    def __init__(self, config: Path, work: Path, results: Path, base: Sequence[str]) -> None:
        self._config, self._work, self._file, self._base = config, work, results, list(base)
        self._caches: dict[str, FeatureCache] = {}

    @property
    def _saved(self) -> dict[str, Any]:
        if self._file.is_file():
            return json.loads(self._file.read_text())
        return {"caches": {}, "rows": [], "head_ms": []}

    def run(self, variant: Variant, seed: int, episodes: int) -> None:
        """Train a variant with a seed and evaluate it, as far as that has not been done."""
        done = {
            row["num_steps"]
            for row in self._saved["rows"]
            if (row["variant"], row["seed"]) == (variant.name, seed)
        }
        missing = [steps for steps in variant.num_steps if steps not in done]
        if not missing:
            return
        settings, run = self._settings(variant, seed), self._directory(variant, seed)
        cache = self._cache(settings)
        seconds = run.path / "seconds.json"
        if not seconds.is_file():  # written last: without it the training was stopped, and begins anew
            shutil.rmtree(run.path, ignore_errors=True)
            run.path.mkdir(parents=True)
            settings.save(run.config)
            began, cpu = time.monotonic(), time.process_time()
            train(run, cache, settings.policy, settings.train)
            spent = {"train_s": time.monotonic() - began, "train_cpu_s": time.process_time() - cpu}
            write_json(seconds, {key: round(value, 1) for key, value in spent.items()})
        policy = load_trained(run.policy_folder("last"), "ema")
        encoder = load_encoder(settings.encoder, policy.config)
        for steps in missing:
            rollout = settings.rollout.model_copy(
                update={"episodes": episodes, "num_steps": steps, "videos": 0}
            )
            live = LivePolicy(policy, encoder, steps)
            info = evaluate(live, settings.env, rollout, run.path / f"eval_{steps}")
            row = {
                "variant": variant.name,
                "seed": seed,
                "num_steps": steps,
                "successes": sum(bool(episode["success"]) for episode in info["per_episode"]),
                "episodes": episodes,
                "modes": info["aggregated"].get("modes", {}),
                "first_environment_seed": rollout.seed,
                "avg_reward": round(info["avg_reward"], 2),
                **json.loads(seconds.read_text()),
                "train_steps": settings.train.steps,
                "parameters": sum(parameter.numel() for parameter in policy.parameters()),
            }
            self._save(cache, rows=[row])

    def measure_latency(self, variants: Sequence[Variant], seed: int) -> None:
        """Time the trained heads side by side, a decision of one robot at a time."""
        heads = {}
        for variant in variants:
            policy = load_trained(self._directory(variant, seed).policy_folder("last"), "ema")
            for steps in variant.timed or variant.num_steps:
                heads[variant.name, steps] = Head(policy, steps)
        with torch.inference_mode():
            seconds = take_turns(heads, LATENCY_ROUNDS)
        rows = [
            {"variant": name, "num_steps": steps, "ms": rounded(1000 * median(taken), 3)}
            for (name, steps), taken in seconds.items()
        ]
        self._save(None, head_ms=rows)

    def _directory(self, variant: Variant, seed: int) -> RunDirectory:
        return RunDirectory(self._work / f"{variant.name.replace(' ', '_')}-seed{seed}")

    def _settings(self, variant: Variant, seed: int) -> PipelineConfig:
        changes = [*self._base, *variant.settings, f"train.seed={seed}", "train.rollout_every=0"]
        return PipelineConfig.load(self._config, {}, changes)

    def _cache(self, settings: PipelineConfig) -> FeatureCache:
        """Open the cache that a variant is trained on; made first where there is none."""
        key = settings.to_toml(["dataset", "encoder", "augment", "cache"]).decode()
        if key not in self._caches:
            self._caches[key] = FeatureCache(Path(stages.embed(settings).cache))
        return self._caches[key]

    def _save(self, cache: FeatureCache | None, **new: list[dict[str, Any]]) -> None:
        """Add to the file; what was measured anew takes the place of the old."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            saved = self._saved
            for key, rows in new.items():
                fresh = {identity(row) for row in rows}
                saved[key] = [row for row in saved[key] if identity(row) not in fresh] + rows
            if cache is not None:
                shards = cache.folder.rglob("*.safetensors")
                saved["caches"][cache.metadata.fingerprint] = {
                    "encoder": ", ".join(e.describe() for e in cache.metadata.encoders.values()),
                    "demonstrations": len(cache.metadata.episodes),
                    "frames": cache.metadata.num_frames,
                    "mib": round(sum(shard.stat().st_size for shard in shards) / 2**20, 1),
                }
            command = " ".join(["python", *sys.argv])
            write_json(self._file, {**saved, "command": command, "machine": machine()})

    def table(self) -> str:
        """Return a Markdown table, seeds pooled."""
        return comparison_table(self._saved)


class Head:
    """One decision after the encoder: trunks, condition and sampling, for one robot.

    Args:
        policy: on the CPU.
        steps: of the sampler.
    """

    def __init__(self, policy: Policy, steps: int) -> None:
        self._policy, self._steps = policy, steps

    @cached_property
    def _observation(self) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(0)
        instants = self._policy.horizons.obs_horizon
        return {
            stream.name: torch.randn(1, instants, *stream.shape, generator=random)
            for stream in self._policy.observes
        }

    def __call__(self) -> None:
        self._policy.act(self._observation, num_steps=self._steps)
