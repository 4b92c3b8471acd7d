"""Compare policies on one cache: the same data, steps and environment seeds, several training seeds.

Results go into one JSON file after every evaluation; a run that is stopped goes on where it was.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import machine

from vla.cache import FeatureCache
from vla.config import PipelineConfig
from vla.embed import FrozenEncoder
from vla.files import write_json
from vla.policy.checkpoint import load_agent
from vla.policy.run import RunDirectory
from vla.policy.train import train
from vla.rollout.evaluate import evaluate
from vla.rollout.live import LivePolicy
from vla.rollout.summary import wilson_interval


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    settings: Sequence[str]
    """`--set` arguments."""
    num_steps: Sequence[int] = (1,)
    """Sampling steps to evaluate with."""


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
        saved = json.loads(results.read_text()) if results.is_file() else {"rows": []}
        self.rows: list[dict[str, Any]] = saved["rows"]

    def run(self, variants: Sequence[Variant], seeds: Sequence[int], episodes: int) -> None:
        """Fill in what is missing, seed by seed, so that a stopped comparison is a fair one."""
        for seed in seeds:
            for variant in variants:
                self._run(variant, seed, episodes)

    def _run(self, variant: Variant, seed: int, episodes: int) -> None:
        done = {
            row["num_steps"] for row in self.rows if (row["variant"], row["seed"]) == (variant.name, seed)
        }
        missing = [steps for steps in variant.num_steps if steps not in done]
        if not missing:
            return
        settings = self._settings(variant, seed)
        run = RunDirectory(self._work / f"{variant.name.replace(' ', '_')}-seed{seed}")
        cache = FeatureCache(Path(settings.cache.path))
        began = time.monotonic()
        if run.last_step() != settings.train.steps:
            run.path.mkdir(parents=True, exist_ok=True)
            settings.save(run.config)
            train(run, cache, settings.policy, settings.train)
            write_json(run.path / "train_seconds.json", round(time.monotonic() - began, 1))
        seconds = json.loads((run.path / "train_seconds.json").read_text())
        agent = load_agent(run.policy_folder("last"), "ema")
        encoder = FrozenEncoder.load(
            settings.encoder.model_copy(
                update={"id": cache.metadata.encoder.id, "pool": cache.metadata.encoder.pooling}
            )
        )
        for steps in missing:
            rollout = settings.rollout.model_copy(
                update={"episodes": episodes, "num_steps": steps, "videos": 0}
            )
            info = evaluate(
                LivePolicy(agent, encoder, steps), settings.env, rollout, run.path / f"eval_{steps}"
            )
            self.rows.append(
                {
                    "variant": variant.name,
                    "seed": seed,
                    "num_steps": steps,
                    "successes": sum(episode["success"] for episode in info["per_episode"]),
                    "episodes": episodes,
                    "avg_reward": round(info["avg_reward"], 2),
                    "latency_ms": {part: values["p50"] for part, values in info["latency_ms"].items()},
                    "train_s": seconds,
                    "train_steps": settings.train.steps,
                    "parameters": sum(parameter.numel() for parameter in agent.parameters()),
                }
            )
            self._save(settings, cache)

    def _settings(self, variant: Variant, seed: int) -> PipelineConfig:
        changes = [*self._base, *variant.settings, f"train.seed={seed}", "train.rollout_every=0"]
        return PipelineConfig.load(self._config, {}, changes)

    def _save(self, settings: PipelineConfig, cache: FeatureCache) -> None:
        write_json(
            self._file,
            {
                "command": " ".join(["python", *sys.argv]),
                "machine": machine(),
                "cache": cache.metadata.fingerprint,
                "encoder": cache.metadata.encoder.describe(),
                "demonstrations": len(cache.metadata.episodes),
                "rows": self.rows,
            },
        )

    def table(self) -> str:
        """Return a Markdown table, seeds pooled."""
        lines = [
            "| variant | steps | success | 95 % interval | avg_reward | by seed | encode | head | train |"
        ]
        lines.append("|---|---|---|---|---|---|---|---|---|")
        keys = dict.fromkeys((row["variant"], row["num_steps"]) for row in self.rows)
        for key in keys:
            rows = [row for row in self.rows if (row["variant"], row["num_steps"]) == key]
            successes, episodes = (sum(row[name] for row in rows) for name in ("successes", "episodes"))
            low, high = wilson_interval(successes, episodes)
            seeds = ", ".join(f"{100 * row['successes'] / row['episodes']:.0f}" for row in rows)
            latency = [median([row["latency_ms"][part] for row in rows]) for part in ("encode", "head")]
            reward = sum(row["avg_reward"] for row in rows) / len(rows)
            lines.append(
                f"| {key[0]} | {key[1]} "
                f"| {100 * successes / episodes:.1f} % | {100 * low:.0f} to {100 * high:.0f} "
                f"| {reward:.0f} | {seeds} | {latency[0]:.1f} ms | {latency[1]:.1f} ms "
                f"| {median([row['train_s'] for row in rows]):.0f} s |"
            )
        return "\n".join(lines)


def median(values: Sequence[float]) -> float:
    """Return the middle value, the upper one of two."""
    return sorted(values)[len(values) // 2]
