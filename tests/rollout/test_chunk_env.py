"""Stepping by chunks: histories, skipped rendering, ends of episodes, videos, refusals."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_env import ENV_ID, CountEnv

from vla.base.horizons import Horizons
from vla.rollout.evaluate.chunk_env import ChunkEnv, make_chunk_env
from vla.rollout.rollout_config import EnvConfig

HORIZONS = Horizons(obs_horizon=2, pred_horizon=16, num_action_steps=8)


def chunked(**kwargs: Any) -> ChunkEnv:
    return make_chunk_env(EnvConfig(id=ENV_ID, kwargs=kwargs), HORIZONS)


def actions(value: float = 0.5) -> np.ndarray:
    return np.full((8, 16), value, np.float32)


def test_the_first_observation_fills_the_history() -> None:
    observation, _ = chunked().reset(seed=3)
    assert observation["state"][:, 0].tolist() == [3, 3]
    assert observation["top"].shape == (2, 32, 32, 3)


def test_a_chunk_ends_with_its_last_two_observations() -> None:
    env = chunked()
    env.reset(seed=0)
    observation, reward, _, _, _ = env.step(actions(0.5))
    assert observation["state"][:, 0].tolist() == [7, 8]
    assert observation["front"][:, 0, 0, 0].tolist() == [7, 8]
    assert reward == pytest.approx(8 * 0.5)
    assert env.observation_space.contains(observation)


def test_only_the_observations_that_are_seen_are_rendered() -> None:
    env = chunked()
    env.reset(seed=0)
    env.step(actions())
    inner = env.unwrapped
    assert isinstance(inner, CountEnv)
    assert inner.rendered == 1 + 2


def test_an_episode_ends_within_a_chunk_and_then_stands_still() -> None:
    env = chunked()
    env.reset(seed=0)
    ends = [env.step(actions(0.25)) for _ in range(4)]
    assert [truncated for _, _, _, truncated, _ in ends] == [False, False, True, True]
    assert [reward for _, reward, _, _, _ in ends] == [2.0, 2.0, 1.0, 0.0]
    assert ends[3][0]["state"][1, 0] == 20


def test_success_and_best_reward_are_those_of_the_episode_so_far() -> None:
    env = chunked()
    env.reset(seed=0)
    assert env.step(actions(0.5))[4]["is_success"]
    info = env.step(actions(-0.5))[4]
    assert info["is_success"] and info["max_reward"] == 0.5
    env.reset(seed=0)
    assert not env.step(actions(-0.5))[4]["is_success"]


@pytest.mark.parametrize(
    ("key", "success", "told"),
    [("is_success", True, True), ("success", True, True), ("", False, False), ("solved", False, False)],
)
def test_success_is_what_lerobots_key_or_gymnasiums_says_or_is_not_told(
    key: str, success: bool, told: bool
) -> None:
    env = chunked(success_key=key)
    env.reset(seed=0)
    info = env.step(actions(0.5))[4]
    assert (info["is_success"], info["tells_success"]) == (success, told)


def test_an_episode_is_filmed_when_its_seed_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "videos" / "five.mp4"
    env = chunked()
    for seed in (4, 5, 6):
        env.reset(seed=seed, options={"videos": {5: str(path)}})
        for _ in range(3):
            env.step(actions())
    env.close()
    assert [p.name for p in path.parent.iterdir()] == ["five.mp4"]
    with av.open(str(path)) as video:
        rate, frames = video.streams.video[0].average_rate, list(video.decode(video=0))
    assert (len(frames), frames[0].width, frames[0].height, rate) == (21, 32, 32, 25)


def test_the_mode_is_what_the_environment_said_last() -> None:
    env = make_chunk_env(EnvConfig(id="vla/Detour-v0"), HORIZONS)
    assert env.reset(seed=0)[1]["mode"] == ""
    way = [(0.0, 0.2), (0.1, 0.2), (0.4, 0.2), (0.6, 0.0)]
    modes = [env.step(np.tile(np.array(place, np.float32), (8, 1)))[4]["mode"] for place in way]
    assert modes == ["", "", "left", "left"]
    assert env.reset(seed=0)[1]["mode"] == ""
    env.close()
