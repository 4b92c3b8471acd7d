"""Forms of actions: what is learned of them, its statistics, and the robot's own again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_hand import arm_cache, poses
from fakes import awake_agent
from test_train import POLICY, losses, settings

from vla.base.errors import ConfigError
from vla.base.horizons import Horizons
from vla.cache import FeatureCache, Stream
from vla.policy.actions.action_form import ACTIONS, ActionForm
from vla.policy.actions.demonstrations import Demonstrations
from vla.policy.actions.streamed import streamed_statistics
from vla.policy.agents.policy import Policy, load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.mixture import Mixture
from vla.policy.random import SeededRows
from vla.policy.training.run import RunDirectory
from vla.policy.training.train import train
from vla.policy.windows import Windows

CPU = torch.device("cpu")
HORIZONS = Horizons(obs_horizon=2, pred_horizon=6, num_action_steps=3)
POSE = {"form": "quaternion_xyzw", "action": 3, "state": 3}
"""An arm: position, quaternion, gripper."""
FORMS: dict[str, Any] = {
    "rotations": {"type": "absolute", "rotations": [POSE]},
    "relative": {"type": "relative", "rotations": [POSE], "absolute": [7]},
    "deltas": {"type": "deltas", "rotations": [POSE], "absolute": [7]},
}


def vector(name: str, dim: int) -> Stream:
    return Stream(name=name, kind="vector", dtype="float32", shape=(dim,))


def form_of(actions: Any, action_dim: int = 8, state_dim: int = 8) -> ActionForm:
    config = ACTIONS.parse(actions)
    return config.build(vector("action", action_dim), vector("state", state_dim), HORIZONS)


def test_relative_actions_are_ways_from_the_current_state() -> None:
    form = form_of({"type": "relative", "absolute": [2]}, 3, 3)
    action, state = torch.arange(18.0).view(1, 6, 3), torch.tensor([[[9.0, 9, 9], [1, 2, 3]]])
    learned = form.encode(action, state)
    assert torch.equal(learned, action - torch.tensor([1.0, 2, 0]))


def test_deltas_are_ways_from_the_action_before_and_at_first_from_the_state() -> None:
    form = form_of({"type": "deltas", "absolute": [1]}, 2, 2)
    x = torch.tensor([10.0, 20, 23, 27, 32, 38])  # now is the second
    action, state = torch.stack([x, x], dim=-1)[None], torch.tensor([[[7.0, 7], [19, 19]]])
    learned = form.encode(action, state)
    assert learned[0, :, 0].tolist() == [3, 1, 3, 4, 5, 6]
    assert learned[0, :, 1].tolist() == x.tolist()


@pytest.mark.parametrize("name", FORMS)
def test_a_chunk_comes_back(name: str) -> None:
    form, action, state = form_of(FORMS[name]), poses(5, 6), poses(5, 2, seed=1)
    learned = form.encode(action, state)
    assert learned.shape == (5, 6, 4 + 6) and form.dim == 10
    torch.testing.assert_close(form.decode(learned, state), action, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(form.from_blend(form.to_blend(action)), action, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(form.decode_state(form.encode_state(state)), state, atol=1e-5, rtol=1e-5)


def test_relative_rotations_are_in_the_axes_of_the_hand() -> None:
    form = form_of({"type": "relative", "rotations": [{**POSE, "form": "euler_xyz"}]}, 6, 6)
    tipped, turned = [0, 0, 0, torch.pi / 2, 0, 0], [0, 0, 0, torch.pi / 2, 0, 0.3]
    learned = form.encode(torch.tensor([[turned] * 6]), torch.tensor([[tipped] * 2]))
    # About the robot's z, which is the hand's y once the hand is tipped about x.
    expected = torch.tensor([np.cos(0.3), 0, -np.sin(0.3), 0, 1, 0], dtype=torch.float32)
    torch.testing.assert_close(learned[0, 0, 3:], expected)


def test_action_and_state_may_write_a_rotation_in_other_forms_and_places() -> None:
    rotation = {"form": "rotation_vector", "action": 0, "state": 2, "state_form": "quaternion_wxyz"}
    form = form_of({"type": "relative", "rotations": [rotation], "state": [1]}, 4, 6)
    state = torch.tensor([[[9, 5, np.cos(0.2), 0, 0, np.sin(0.2)]] * 2], dtype=torch.float32)
    action = torch.tensor([[[0, 0, 0.4, 5.5]] * 6], dtype=torch.float32)  # turned as the state is
    learned = form.encode(action, state)
    torch.testing.assert_close(learned[0, 0], torch.tensor([0.5, 1, 0, 0, 0, 1, 0]))
    torch.testing.assert_close(form.decode(learned, state), action)


@pytest.mark.parametrize(
    ("actions", "dims", "says"),
    [
        ({"type": "relative"}, (3, 4), r"3 numbers and the state 4; say which .* numbers \[0, 1, 2\]"),
        ({"type": "relative", "state": [0]}, (2, 2), r"must name a plain number .* for each of .*\[0, 1\]"),
        ({"type": "relative", "state": [0, 9]}, (2, 2), r"state = \[0, 9\] must name"),
        ({"type": "deltas", "absolute": [5]}, (2, 2), r"absolute names number 5, .* such are \[0, 1\]"),
        ({"type": "relative", "rotations": [{**POSE, "state": None}]}, (8, 8), r"none in the state; give"),
        ({"type": "absolute", "rotations": [{**POSE, "action": 5}]}, (8, 8), "from 5 on needs 4 of 8"),
        ({"type": "absolute", "rotations": [POSE, {**POSE, "action": 6}]}, (10, 8), "share a number"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(actions: Any, dims: tuple[int, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        form_of(actions, *dims)


def configured(**changes: Any) -> VLAAgentConfig:
    return VLAAgentConfig.model_validate({**POLICY.model_dump(), **changes})


def agent_of(cache: FeatureCache | Mixture, config: VLAAgentConfig, val_episodes: int = 0) -> VLAAgent:
    shown = Demonstrations(cache, val_episodes, config.horizons)
    return awake_agent(VLAAgent.for_cache(config, cache.metadata, demonstrations=shown)).eval()


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mixed", [False, True])
def test_statistics_are_those_of_all_that_is_learned(tmp_path: Path, name: str, mixed: bool) -> None:
    one = arm_cache(tmp_path / "one")
    caches = [one, arm_cache(tmp_path / "two", seed=1)] if mixed else [one]
    config = configured(actions=FORMS[name])
    policy = agent_of(Mixture(caches) if mixed else one, config, val_episodes=1)
    rows = []
    for cache in caches:
        windows = Windows(cache, config.horizons, [cache.streams["state"]], device=CPU, resident=True)
        for current in windows.frames_of([0, 2]):  # the one in the middle is held out
            batch = windows.batch(current[None])
            learned = policy.action_form.encode(batch.action, batch.observation["state"])
            rows.append(learned[~batch.action_is_pad])
    every = torch.cat(rows).double()
    torch.testing.assert_close(policy.action_standardize.mean, every.mean(0).float(), atol=1e-6, rtol=1e-5)
    std = every.std(0, correction=0).float()
    torch.testing.assert_close(policy.action_standardize.std, std, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 101, 5000])
def test_streamed_quantiles_are_numpys(count: int) -> None:
    rows = torch.randn(count, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1.0, 1e6])
    rows[: count // 3, 1] = 0.25  # many alike
    found = streamed_statistics(3, lambda: rows.split(97), quantiles=True)
    for name, share in (("q01", 0.01), ("q99", 0.99)):
        assert getattr(found, name) == pytest.approx(
            np.quantile(rows.double().numpy(), share, axis=0), rel=1e-12
        )
    assert found.min == tuple(rows.double().amin(0).tolist()) and found.count == count


@pytest.mark.parametrize("name", FORMS)
def test_what_rests_is_commanded_exactly_and_not_learned(tmp_path: Path, name: str) -> None:
    cache = arm_cache(tmp_path / "cache", rests=True)
    agent = agent_of(cache, configured(actions=FORMS[name]))
    windows = Windows(cache, agent.horizons, agent.observes, device=CPU, resident=True)
    batch = windows.batch(torch.tensor([3, 14]))
    assert not agent.learns(batch)[..., [0, 3]].any()  # x and the gripper, plain numbers 0 and 3
    seen = {**batch.observation, "state": batch.observation["state"] + 0.2}
    chunk = agent.predict_action_chunk(seen, random=SeededRows([1, 2], CPU))
    assert torch.equal(chunk[..., [0, 7]], torch.tensor([0.3, 0.7]).expand(2, 16, 2))


def test_a_relative_policy_moves_along_with_the_robot(tmp_path: Path) -> None:
    cache = arm_cache(tmp_path / "cache")
    agent = agent_of(cache, configured(actions={"type": "relative"}))
    windows = Windows(cache, agent.horizons, agent.observes, device=CPU, resident=True)
    batch = windows.batch(torch.tensor([3]))
    learned = agent.as_learned(batch.action, batch.observation["state"])
    there = batch.observation["state"] + 5
    torch.testing.assert_close(agent.in_robot_units(learned, there), batch.action + 5)


@pytest.mark.parametrize("name", FORMS)
def test_it_trains_comes_back_and_acts_alike(tmp_path: Path, name: str) -> None:
    cache, run = arm_cache(tmp_path / "cache"), RunDirectory.create(tmp_path / "run")
    config = configured(actions=FORMS[name], normalization="quantile")
    train(run, cache, config, settings(steps=2, val_every=2))
    assert all(np.isfinite(losses(run)))
    policy = load_policy(run.policy_folder("last"))
    assert policy.config.policy.model_dump()["actions"]["type"] == FORMS[name]["type"]
    windows = Windows(cache, policy.horizons, policy.observes, device=CPU, resident=True)
    seen = windows.batch(torch.tensor([3])).observation
    actions, _ = policy.act(seen, random=SeededRows([1], CPU))
    torch.testing.assert_close(actions[..., 3:7].norm(dim=-1), torch.ones(1, 8))


def test_a_form_that_needs_what_is_not_there_is_refused(tmp_path: Path) -> None:
    cache, config = arm_cache(tmp_path / "one"), configured(actions="relative")
    with pytest.raises(ConfigError, match=r"relative needs the demonstrations"):
        Policy.for_cache(config, cache.metadata)
    with pytest.raises(ConfigError, match=r"needs the state, and policy\.streams leaves it out"):
        agent_of(cache, configured(actions="deltas", streams=["top"]))
    each = Mixture([cache, arm_cache(tmp_path / "two", seed=1)], normalise="each")
    with pytest.raises(ConfigError, match=r"train\.normalise = each .* leave one of them out"):
        agent_of(each, config)
