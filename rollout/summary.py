"""What evaluation episodes amount to: `eval_info.json`, with LeRobot's keys and a few more."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Z_95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One evaluation episode."""

    seed: int
    sum_reward: float
    max_reward: float
    success: bool


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """Return the 95 % interval of a success rate (Wilson 1927), in [0, 1].

    Unlike the normal approximation it stays inside [0, 1] and is not empty at 0 or n successes.
    """
    rate, z2 = successes / episodes, Z_95**2 / episodes
    centre = (rate + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(rate * (1 - rate) / episodes + z2 / (4 * episodes))
    # At 0 or n successes the bound is exact; rounding would leave it 1e-17 off.
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == episodes else centre + half)


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99 and the mean of some durations [ms]."""
    values = np.asarray(seconds) * 1000
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    figures = {"p50": p50, "p90": p90, "p99": p99, "mean": values.mean()}
    return {name: round(float(value), 3) for name, value in figures.items()}


def summarise(
    episodes: Sequence[EpisodeResult],
    latency_s: Mapping[str, Sequence[float]],
    seconds: float,
    video_paths: Sequence[str],
) -> dict[str, Any]:
    """Build the contents of `eval_info.json`.

    Args:
        episodes: in order of their seeds.
        latency_s: durations by part (render, encode, head), one a decision; empty parts are left out.
        seconds: wall time of all episodes.
        video_paths: mp4 files, relative to `eval_info.json`.
    """
    successes = sum(episode.success for episode in episodes)
    low, high = wilson_interval(successes, len(episodes))
    aggregated = {
        "avg_sum_reward": float(np.mean([episode.sum_reward for episode in episodes])),
        "avg_max_reward": float(np.mean([episode.max_reward for episode in episodes])),
        "pc_success": 100 * successes / len(episodes),
        "pc_success_ci95": [100 * low, 100 * high],
        "n_episodes": len(episodes),
        "eval_s": seconds,
        "eval_ep_s": seconds / len(episodes),
        "video_paths": list(video_paths),
    }
    return {
        "per_episode": [{"episode_ix": i, **asdict(episode)} for i, episode in enumerate(episodes)],
        "aggregated": aggregated,
        # The figure to track: the mean over episodes of the sum of rewards.
        "avg_reward": aggregated["avg_sum_reward"],
        "latency_ms": {part: percentiles_ms(values) for part, values in latency_s.items() if len(values)},
    }
