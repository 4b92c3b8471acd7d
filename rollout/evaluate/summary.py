"""What evaluation episodes amount to: `eval_info.json`, with LeRobot's keys and a few more."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# The success of other rooms is written in the same way, so the formatter lies under all of them.
from vla.base.success import format_success as format_success
from vla.base.success import wilson_interval as wilson_interval


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One evaluation episode."""

    seed: int
    sum_reward: float
    max_reward: float
    success: bool | None
    """None where the environment has not said."""
    mode: str | None = None
    """Which of several right ways it went, where the environment tells them apart."""
    task: str | None = None
    """The instruction that it was given, where the environment gave one."""
    asked: str | None = None
    """What success is counted by, where the environment says so: many wordings may ask for one thing."""


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99 and the mean of some durations [ms]."""
    values = np.asarray(seconds) * 1000
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    figures = {"p50": p50, "p90": p90, "p99": p99, "mean": values.mean()}
    return {name: round(float(value), 3) for name, value in figures.items()}


def success_rate(episodes: Sequence[EpisodeResult]) -> float | None:
    """Return the share of successes; None where no episode was told anything of success.

    An environment that speaks of success only when there is some has failed in the other episodes.
    """
    if all(episode.success is None for episode in episodes):
        return None
    return sum(bool(episode.success) for episode in episodes) / len(episodes)


def summarise(
    episodes: Sequence[EpisodeResult],
    latency_s: Mapping[str, Sequence[float]],
    seconds: float,
    video_paths: Sequence[str],
) -> dict[str, Any]:
    """Build the contents of `eval_info.json`; what was not measured is None.

    Args:
        episodes: in order of their seeds.
        latency_s: durations by part (render, encode, head), one a decision; empty parts are left out.
        seconds: wall time of all episodes.
        video_paths: mp4 files, relative to `eval_info.json`.
    """
    rate, interval = success_rate(episodes), None
    if rate is not None:
        low, high = wilson_interval(round(rate * len(episodes)), len(episodes))
        interval = [100 * low, 100 * high]
    aggregated: dict[str, Any] = {
        "avg_sum_reward": float(np.mean([episode.sum_reward for episode in episodes])),
        "avg_max_reward": float(np.mean([episode.max_reward for episode in episodes])),
        "pc_success": None if rate is None else 100 * rate,
        "pc_success_ci95": interval,
        "n_episodes": len(episodes),
        "eval_s": seconds,
        "eval_ep_s": seconds / len(episodes),
        "video_paths": list(video_paths),
    }
    modes = Counter(episode.mode for episode in episodes if episode.mode is not None)
    if modes:
        aggregated["modes"] = dict(sorted(modes.items()))
    asked = sorted({episode.asked for episode in episodes if episode.asked is not None})
    if asked:
        aggregated["asked"] = {name: _counted([e for e in episodes if e.asked == name]) for name in asked}
    return {
        "per_episode": [_row(i, episode) for i, episode in enumerate(episodes)],
        "aggregated": aggregated,
        # The figure to track: the mean over episodes of the sum of rewards.
        "avg_reward": aggregated["avg_sum_reward"],
        "latency_ms": {part: percentiles_ms(values) for part, values in latency_s.items() if len(values)},
    }


def _row(index: int, episode: EpisodeResult) -> dict[str, Any]:
    """Return what is written of an episode; most environments know of no modes, and give no instruction."""
    untold = [key for key in ("mode", "task", "asked") if getattr(episode, key) is None]
    return {
        "episode_ix": index,
        **{key: value for key, value in asdict(episode).items() if key not in untold},
    }


def _counted(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    rate = success_rate(episodes)
    return {"n_episodes": len(episodes), "pc_success": None if rate is None else 100 * rate}
