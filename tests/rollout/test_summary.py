"""Success intervals, latencies and the keys of `eval_info.json`."""

from pathlib import Path

import pytest

from vla.commands.rollout import _readable
from vla.rollout.evaluate.plots import plot_evaluation
from vla.rollout.evaluate.summary import (
    EpisodeResult,
    percentiles_ms,
    success_rate,
    summarise,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    # Values of Newcombe 1998, table I, method 3, and of the rule of three at the borders.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(successes: int, episodes: int, low: float, high: float) -> None:
    assert wilson_interval(successes, episodes) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_is_symmetric_and_stays_inside_zero_and_one() -> None:
    low, high = wilson_interval(7, 20)
    assert wilson_interval(13, 20) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(20, 20)[1] == 1.0


def test_durations_become_milliseconds() -> None:
    figures = percentiles_ms([0.001 * i for i in range(1, 102)])
    assert (figures["p50"], figures["p90"], figures["mean"]) == (51.0, 91.0, 51.0)


def result(seed: int, success: bool | None) -> EpisodeResult:
    return EpisodeResult(seed=seed, sum_reward=1.0, max_reward=1.0, success=success)


def test_success_that_no_episode_was_told_of_is_not_measured_rather_than_zero(tmp_path: Path) -> None:
    info = summarise([result(0, None), result(1, None)], {}, 1.0, [])
    assert (info["aggregated"]["pc_success"], info["aggregated"]["pc_success_ci95"]) == (None, None)
    readable = _readable({**info, "policy": "p", "out": "o"})
    assert readable["success (95 % interval)"] == "not measured"
    assert plot_evaluation(info, tmp_path).is_file()


def test_an_environment_that_only_speaks_of_success_failed_in_the_other_episodes() -> None:
    assert success_rate([result(0, None), result(1, True), result(2, None), result(3, False)]) == 0.25


def test_eval_info_has_lerobots_keys_and_the_users() -> None:
    episodes = [
        EpisodeResult(seed=7, sum_reward=10.0, max_reward=4.0, success=True),
        EpisodeResult(seed=8, sum_reward=2.0, max_reward=1.0, success=False),
    ]
    info = summarise(episodes, {"render": [], "encode": [0.01], "head": [0.002]}, 3.0, ["videos/a.mp4"])
    assert info["per_episode"][1] == {
        "episode_ix": 1,
        "seed": 8,
        "sum_reward": 2.0,
        "max_reward": 1.0,
        "success": False,
    }
    aggregated = info["aggregated"]
    assert aggregated.keys() == {
        "avg_sum_reward",
        "avg_max_reward",
        "pc_success",
        "pc_success_ci95",
        "n_episodes",
        "eval_s",
        "eval_ep_s",
        "video_paths",
    }
    assert (aggregated["pc_success"], aggregated["eval_ep_s"], info["avg_reward"]) == (50.0, 1.5, 6.0)
    assert info["latency_ms"].keys() == {"encode", "head"}


def test_modes_are_counted_where_an_environment_tells_them_apart() -> None:
    modes = ["left", None, "right", "left"]
    episodes = [
        EpisodeResult(seed=k, sum_reward=0.0, max_reward=0.0, success=True, mode=mode)
        for k, mode in enumerate(modes)
    ]
    info = summarise(episodes, {}, 1.0, [])
    assert info["aggregated"]["modes"] == {"left": 2, "right": 1}
    assert [episode.get("mode") for episode in info["per_episode"]] == modes
    assert "modes" not in summarise(episodes[1:2], {}, 1.0, [])["aggregated"]
