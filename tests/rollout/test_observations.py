"""Environments as people write them: what they give is copied and checked, and faults are named as theirs."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from vla.base.errors import EnvironmentSetupError
from vla.base.horizons import Horizons
from vla.cache.stream import Stream
from vla.rollout.evaluate.chunk_env import ChunkEnv
from vla.rollout.evaluate.environment_processes import EnvironmentProcesses
from vla.rollout.evaluate.episodes import take_turns
from vla.rollout.live import LivePolicy
from vla.rollout.worlds.observations import Observations

HORIZONS = Horizons(obs_horizon=2, pred_horizon=8, num_action_steps=4)


class Counting(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Counts steps in its image and state; `give` changes what it gives."""

    observation_space: Any = spaces.Dict(
        {
            "pixels": spaces.Dict({"cam": spaces.Box(0, 255, (4, 6, 3), np.uint8)}),
            "agent_pos": spaces.Box(-1, 1, (2,), np.float32),
        }
    )
    action_space: Any = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, give: Callable[[dict[str, Any]], Any] = lambda given: given) -> None:
        self.give, self.steps = give, 0
        self.reward: Any = 1.0
        self.told: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observe(), self.reward, False, False, self.told

    def _observe(self) -> dict[str, Any]:
        frame = np.full((4, 6, 3), self.steps, np.uint8)
        given: dict[str, Any] = {"pixels": {"cam": frame}, "agent_pos": np.full(2, self.steps, np.float32)}
        found: dict[str, Any] = self.give(given)
        return found


def view(change: Callable[[np.ndarray], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda given: {**given, "pixels": {"cam": change(given["pixels"]["cam"])}}


def state(value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda given: {**given, "agent_pos": value}


def stepped(env: Counting, times: int = 1) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    wrapped = Observations(env, {})
    wrapped.reset()
    return [wrapped.step(np.zeros(2)) for _ in range(times)][-1]


def test_arrays_that_are_written_over_are_copied() -> None:
    kept: dict[str, Any] = {}

    def reuse(given: dict[str, Any]) -> dict[str, Any]:
        if not kept:
            kept.update(given)
        kept["pixels"]["cam"][:] = given["pixels"]["cam"]
        kept["agent_pos"][:] = given["agent_pos"]
        return kept

    env = ChunkEnv(Observations(Counting(reuse), {}), HORIZONS)
    env.reset()
    seen, *_ = env.step(np.zeros((4, 2), np.float32))
    assert seen["cam"][:, 0, 0, 0].tolist() == seen["state"][:, 0].tolist() == [3, 4]


def test_views_with_negative_strides_and_plain_lists_are_taken() -> None:
    seen = stepped(Counting(view(lambda frame: frame[::-1])))[0]
    assert seen["cam"].flags.c_contiguous
    assert stepped(Counting(state([3, 0.5])))[0]["state"].tolist() == [3, 0.5]


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (
            view(lambda frame: frame / 255),
            "view 'cam' as uint8 [4, 6, 3] and gave float64 [4, 6, 3] from 0 to",
        ),
        (view(lambda frame: frame.astype(int)), "view 'cam' as uint8 [4, 6, 3] and gave int64 [4, 6, 3]"),
        (view(lambda frame: frame.transpose(2, 0, 1)), "gave uint8 [3, 4, 6]"),
        (view(lambda frame: np.repeat(frame, 2, 0)), "gave uint8 [8, 6, 3]"),
        (lambda given: {"agent_pos": given["agent_pos"]}, "view 'cam' as uint8 [4, 6, 3] and gave nothing"),
        (lambda given: {"pixels": given["pixels"]}, "'agent_pos' as float32 [2] and gave nothing"),
        (state(np.zeros(3)), "'agent_pos' as float32 [2] and gave float64 [3]"),
        (state(["a", "b"]), "'agent_pos' as float32 [2] and gave <U1 [2]"),
    ],
)
def test_what_was_declared_otherwise_is_refused_by_name(give: Any, told: str) -> None:
    with pytest.raises(EnvironmentSetupError, match=rf"'Counting' .*{re.escape(told)}.*at step 0") as caught:
        stepped(Counting(give))
    assert "docs/environments.md" in str(caught.value)


def test_an_environment_of_before_gymnasium_is_told_what_reset_returns() -> None:
    # Its dictionary of two keys is taken for (observation, info).
    env = Counting(lambda given: "agent_pos")
    with pytest.raises(EnvironmentSetupError, match=r"gave str 'agent_pos' for an observation; reset must"):
        stepped(env)


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 255, (3, 4, 6), np.uint8), spaces.Box(0, 1, (4, 6, 3), np.float32)], ids=str
)
def test_an_environment_without_any_rgb_image_is_to_be_wrapped(space: spaces.Box) -> None:
    env = Counting()
    state = env.observation_space["agent_pos"]
    env.observation_space = spaces.Dict({"pixels": spaces.Dict({"cam": space}), "agent_pos": state})
    with pytest.raises(EnvironmentSetupError, match=r"no uint8 image \[h, w, 3\]; wrap the environment"):
        Observations(env, {})


@pytest.mark.parametrize("reward", [2, np.float32(2), np.array([2.0]), np.array([[2]])])
def test_a_reward_is_one_number_whatever_it_comes_in(reward: Any) -> None:
    env = Counting()
    env.reward = reward
    found = stepped(env)[1]
    assert type(found) is float and found == 2


@pytest.mark.parametrize("reward", [np.array([1.0, 2.0]), np.array([]), float("nan"), "2", None])
def test_a_reward_that_is_no_number_is_refused(reward: Any) -> None:
    env = Counting()
    env.reward = reward
    with pytest.raises(EnvironmentSetupError, match=r"'Counting' gave reward = .* at step 1 .*one number"):
        stepped(env)


@pytest.mark.parametrize("key", ["is_success", "success"])
def test_success_is_one_truth_whatever_it_comes_in(key: str) -> None:
    env = Counting()
    cases: list[tuple[Any, bool]] = [(np.array([True]), True), (np.float32(0), False), (1, True)]
    for given, due in cases:
        env.told = {key: given}
        assert stepped(env)[4][key] is due
    for wrong in (np.array([True, False]), "False", float("nan")):
        env.told = {key: wrong}
        with pytest.raises(EnvironmentSetupError, match=rf"gave info\['{key}'\] = "):
            stepped(env)


class Group(EnvironmentProcesses):
    """Stands for processes of environments, in this one."""

    def __init__(self, env: ChunkEnv) -> None:
        self.seen: dict[str, np.ndarray] = {}
        self.env, self.env_id, self.num_envs = env, "robots/Counting-v0", 1
        self.action_space = spaces.Box(-1, 1, (1, 4, 2), np.float32)

    def reset_async(self, seed: Any = None, options: Any = None) -> None:
        self.seen = self.env.reset()[0]

    def reset_wait(self, timeout: Any = None) -> Any:
        return {name: value[None] for name, value in self.seen.items()}, {}

    def step_async(self, actions: np.ndarray) -> None:
        answer: Any = self.env.step(actions[0])
        self.seen, *self.result = answer

    def step_wait(self, timeout: Any = None) -> Any:
        *found, info = self.result
        told = {name: np.array([value]) for name, value in info.items()}
        return self.reset_wait()[0], *(np.array([value]) for value in found), told

    def close(self, **kwargs: Any) -> None:
        pass


class Still(LivePolicy):
    """Sees the state alone, and never moves."""

    def __init__(self) -> None:
        self.horizons = HORIZONS
        self.observes = (Stream(name="state", kind="vector", dtype="float32", shape=(2,)),)

    def act(self, observation: Any, seeds: Any = None, task: Any = "", memory: Any = None) -> Any:
        assert np.isfinite(observation["state"]).all()
        return np.zeros((1, 4, 2), np.float32), type("Timing", (), {"encode_s": 0, "head_s": 0}), None


def rolled_out(give: Callable[[dict[str, Any]], Any]) -> Iterator[Any]:
    group = Group(ChunkEnv(Observations(Counting(give), {}), HORIZONS))
    return take_turns(Still(), [group], iter([5]), {}, {"render": [], "encode": [], "head": []})


def test_a_state_that_is_not_finite_is_the_environments_with_step_key_and_seed() -> None:
    def breaks(given: dict[str, Any]) -> dict[str, Any]:
        value = given["agent_pos"]
        return {**given, "agent_pos": np.where([False, value[1] >= 7], np.nan, value)}

    told = r"'robots/Counting-v0' gave 'agent_pos'\[1\] = nan at step 8 of the episode of seed 5"
    with pytest.raises(EnvironmentSetupError, match=told):
        list(rolled_out(breaks))
