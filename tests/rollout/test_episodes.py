"""Groups of environments, in turns or side by side: who works while whom, and which seed goes where."""

import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import ENV_ID
from gymnasium import spaces

from vla.base.errors import EnvironmentSetupError, VlaError
from vla.base.horizons import Horizons
from vla.rollout.evaluate.chunk_env import make_chunk_env
from vla.rollout.evaluate.environment_processes import EnvironmentProcesses
from vla.rollout.evaluate.episodes import run_side_by_side, take_turns
from vla.rollout.evaluate.evaluate import group_sizes
from vla.rollout.live import Decision, LivePolicy, Timing
from vla.rollout.rollout_config import EnvConfig


class FakeGroup(EnvironmentProcesses):
    """Environments that end after two chunks; every call is written down."""

    def __init__(self, name: str, num_envs: int, events: list[str]) -> None:
        self.name, self.num_envs, self.events, self.env_id = name, num_envs, events, "fake"
        self.action_space = spaces.Box(-1, 1, (num_envs, 8, 2), np.float32)
        self.aborted = threading.Event()

    def reset_async(self, seed: Any = None, options: Any = None) -> None:
        self.steps = 0
        self.events.append(f"{self.name} starts {[s for s in seed if s is not None]}")

    def step_async(self, actions: np.ndarray) -> None:
        self.steps += 1
        self.events.append(f"{self.name} steps")

    def reset_wait(self, timeout: Any = None) -> tuple[Any, dict[str, Any]]:
        self.events.append(f"{self.name} is waited for")
        return self._observation(), {}

    def step_wait(self, timeout: Any = None) -> Any:
        self.events.append(f"{self.name} is waited for")
        ones = np.ones(self.num_envs)
        info = {
            "render_s": 0.01 * ones,
            "max_reward": ones,
            "is_success": ones > 0,
            "tells_success": ones > 0,
            "mode": np.full(len(ones), "", object),
        }
        over = np.full(self.num_envs, self.steps == 2)
        return self._observation(), ones, over, ~(ones > 0), info

    def abort(self) -> None:
        self.aborted.set()

    def close(self, **kwargs: Any) -> None:
        pass

    def _observation(self) -> dict[str, Any]:
        frames = np.zeros((self.num_envs, 2, 4, 4, 3), np.uint8)
        return {"top": frames, "state": np.zeros((self.num_envs, 2, 2), np.float32)}


class FakePolicy(LivePolicy):
    """Writes its decisions down; it remembers how many it has made in the episodes at hand."""

    def __init__(self, events: list[str]) -> None:
        self.events, self.remembered, self.observes = events, [], ()  # type: ignore[var-annotated]

    def act(
        self,
        observation: Any,
        seeds: Sequence[int] | None = None,
        task: str | Sequence[str] = "",
        memory: Any = None,
    ) -> Decision:
        rows = len(observation["state"])
        self.events.append("encode")
        self.remembered.append(memory)
        assert seeds is not None and len(seeds) == rows
        timing = Timing(encode_s=0.1, head_s=0.1)
        return Decision(np.zeros((rows, 8, 2), np.float32), timing, (memory or 0) + 1)


class StuckGroup(FakeGroup):
    """Its environment does not answer before it is ended."""

    def step_wait(self, timeout: Any = None) -> Any:
        assert self.aborted.wait(60)
        raise EnvironmentSetupError("ended")


class FailingGroup(FakeGroup):
    """Its environment fails in its first step."""

    def step_wait(self, timeout: Any = None) -> Any:
        raise EnvironmentSetupError("the joint is stuck")


class LostPolicy(FakePolicy):
    """Its second robot gets an action that is no number."""

    def act(
        self,
        observation: Any,
        seeds: Sequence[int] | None = None,
        task: str | Sequence[str] = "",
        memory: Any = None,
    ) -> Decision:
        decision = super().act(observation, seeds, task, memory)
        decision.actions[1, 3, 0] = np.nan
        return decision


def run(sizes: Sequence[int], episodes: int) -> tuple[list[str], list[int]]:
    events: list[str] = []
    groups = [FakeGroup("AB"[i], size, events) for i, size in enumerate(sizes)]
    latency: dict[str, list[float]] = {"render": [], "encode": [], "head": []}
    found = take_turns(FakePolicy(events), groups, iter(range(episodes)), {}, latency)
    return events, [result.seed for ended in found for result in ended]


def test_one_group_is_at_work_while_the_others_images_are_encoded() -> None:
    events, _ = run((1, 1), episodes=2)
    assert events[:8] == [
        "A starts [0]",
        "B starts [1]",
        "A is waited for",
        "encode",
        "A steps",
        "B is waited for",
        "encode",
        "B steps",
    ]


def test_what_a_policy_remembers_lasts_as_long_as_its_episodes() -> None:
    policy = FakePolicy([])
    list(
        take_turns(
            policy, [FakeGroup("A", 1, [])], iter(range(2)), {}, {"encode": [], "head": [], "render": []}
        )
    )
    assert policy.remembered == [None, 1, None, 1]


def test_every_seed_is_run_once_whatever_the_groups() -> None:
    for sizes in ((1,), (1, 1), (2, 1), (3, 2)):
        _, seeds = run(sizes, episodes=7)
        assert sorted(seeds) == list(range(7))


def test_side_by_side_every_seed_is_run_once_and_torch_has_its_threads_back() -> None:
    before = torch.get_num_threads()
    for groups in (1, 3):
        events: list[str] = []
        latency: dict[str, list[float]] = {"render": [], "encode": [], "head": []}
        found = run_side_by_side(
            FakePolicy(events),
            [FakeGroup(str(i), 1, events) for i in range(groups)],
            iter(range(7)),
            {},
            latency,
        )
        assert sorted(result.seed for ended in found for result in ended) == list(range(7))
        assert len(latency["head"]) == 14
    assert torch.get_num_threads() == before


def test_side_by_side_a_failing_group_ends_those_that_wait_for_their_environments() -> None:
    events: list[str] = []
    stuck, failing = StuckGroup("A", 1, events), FailingGroup("B", 1, events)
    with pytest.raises(EnvironmentSetupError, match="the joint is stuck"):
        list(run_side_by_side(FakePolicy(events), [stuck, failing], iter((7, 8)), {}, {}))
    assert stuck.aborted.is_set()


def test_the_last_episodes_leave_the_other_environments_idle() -> None:
    events, _ = run((2, 2), episodes=3)
    assert [event for event in events if "starts" in event] == ["A starts [0, 1]", "B starts [2]"]


def test_environments_are_split_in_two_where_encoding_leaves_the_cpu_alone_and_each_is_alone_on_it() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [group_sizes(n, gpu) for n in (1, 2, 3, 8)] == [[1], [1, 1], [2, 1], [4, 4]]
    assert [group_sizes(n, cpu) for n in (1, 2, 3, 8)] == [[1], [1] * 2, [1] * 3, [1] * 8]


def test_actions_that_are_not_finite_are_refused_naming_the_episode_before_a_robot_gets_them() -> None:
    events: list[str] = []
    group = FakeGroup("A", 2, events)
    with pytest.raises(VlaError, match=r"episode of seed 8, decision 1, are not finite.*vla verify"):
        list(take_turns(LostPolicy(events), [group], iter((7, 8)), {}, {}))
    assert "A steps" not in events


def environments(trouble: str, num_envs: int = 2) -> EnvironmentProcesses:
    config = EnvConfig(id=ENV_ID, kwargs={"trouble": trouble})
    horizons = Horizons(obs_horizon=2, pred_horizon=16, num_action_steps=8)
    make = functools.partial(make_chunk_env, config, horizons)
    return EnvironmentProcesses(make, num_envs, config.id)


def test_an_environment_process_that_is_killed_is_named_with_what_to_do() -> None:
    group = environments("killed")
    group.reset_async(seed=[1, 2])
    group.reset_wait()
    group.step_async(np.zeros((2, 8, 16), np.float32))
    with pytest.raises(
        EnvironmentSetupError, match=r"process [12] of 2 \('fake_env:.*'\) ended \(SIGKILL\).*num_envs=1"
    ):
        group.step_wait()
    group.close()
    assert not any(process.is_alive() for process in group.processes)


def test_what_an_environment_raises_is_one_line_and_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    group = environments("raised")
    group.reset_async(seed=[1, 2])
    group.reset_wait()
    group.step_async(np.zeros((2, 8, 16), np.float32))
    with pytest.raises(
        EnvironmentSetupError,
        match=r"process [12] of 2, raised ValueError: the joint is stuck at .*fake_env.py",
    ):
        group.step_wait()
    group.close()
    assert capfd.readouterr().err == ""
