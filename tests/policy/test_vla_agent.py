"""The agent on streams of every kind, alone and together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import awake_agent, fake_identity, fake_spec, write_cache
from test_train import POLICY, settings

from vla.base.errors import ConfigError
from vla.cache import FeatureCache, Stream, TextIdentity
from vla.policy.agents.policy import Policy, load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.random import GivenNoise, SeededRows
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.train import train
from vla.policy.windows import Windows

CPU = torch.device("cpu")
SENSORS = (
    Stream(name="lidar", kind="points", dtype="float32", shape=(5, 4), key="observation.lidar"),
    Stream(name="imu.left", kind="series", dtype="float32", shape=(7, 6), key="observation.imu"),
    Stream(name="touch", kind="vector", dtype="float32", shape=(3,), key="observation.touch"),
)


def configured(**changes: Any) -> VLAAgentConfig:
    return VLAAgentConfig.model_validate({**POLICY.model_dump(), **changes})


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    """Return a cache with a camera's pixels, another's features, sensors and the state."""
    pixels = fake_identity(type="pixels", id="pixels", weights_sha256=None, dtype="uint8", settings={})
    image = Stream(name="wrist", kind="image", dtype="uint8", shape=(16, 16, 3), made_by=pixels.digest)
    spec = fake_spec(lengths=(12, 9, 10), cameras=("top",), tokens=4, sensors=SENSORS)
    spec = replace(spec, streams=(image, *spec.streams), encoders={pixels.digest: pixels, **spec.encoders})
    return write_cache(tmp_path / "cache", spec)


def observation_of(cache: FeatureCache, policy: Policy, frame: int = 3) -> dict[str, torch.Tensor]:
    cut = Windows(cache, policy.horizons, policy.observes, device=CPU, resident=True)
    return cut.batch(torch.tensor([frame, frame + 1])).observation


def test_streams_of_every_kind_are_trained_on_together_and_come_back(
    cache: FeatureCache, tmp_path: Path
) -> None:
    run = RunDirectory.create(tmp_path / "run")
    train(run, cache, POLICY, settings(steps=2, val_every=2))
    assert all(row["loss"] > 0 for row in read_metrics(run))
    policy = load_policy(run.policy_folder("last"))
    names = ["wrist", "top", "lidar", "imu.left", "touch", "state"]
    assert [stream.name for stream in policy.observes] == names
    actions, memory = policy.act(observation_of(cache, policy), random=SeededRows([1, 2], CPU))
    assert (actions.shape, memory) == ((2, 8, 16), None)


@pytest.mark.parametrize("name", ["wrist", "top", "lidar", "imu.left", "touch", "state"])
def test_an_agent_sees_each_of_its_streams(cache: FeatureCache, name: str) -> None:
    agent = awake_agent(VLAAgent.for_cache(POLICY, cache.metadata))
    observation = observation_of(cache, agent)
    changed = {**observation, name: observation[name].flip(0)}
    assert not torch.equal(agent._build_cond(observation), agent._build_cond(changed))


def test_cameras_are_those_that_encoders_read_and_sensors_are_none(cache: FeatureCache) -> None:
    assert VLAAgent.for_cache(POLICY, cache.metadata).camera_names == ("wrist", "top")


def test_an_agent_can_be_told_what_to_see(cache: FeatureCache) -> None:
    agent = VLAAgent.for_cache(configured(streams=["lidar", "touch"]), cache.metadata)
    assert [stream.name for stream in agent.observes] == ["lidar", "touch"]
    assert (agent.num_cameras, agent.config.encoders, agent.state_standardize) == (0, {}, None)
    assert agent.raw_per_step_cond_dim == 2 * POLICY.per_view_dim


def test_a_stream_that_is_not_there_is_refused_by_name(cache: FeatureCache) -> None:
    with pytest.raises(ConfigError, match=r"policy\.streams names 'lidr', .* did you mean 'lidar'\?"):
        VLAAgent.for_cache(configured(streams=["lidr"]), cache.metadata)


def test_a_stream_can_be_given_another_trunk(cache: FeatureCache) -> None:
    agent = VLAAgent.for_cache(configured(trunks={"top": "linear"}), cache.metadata)
    assert agent.raw_per_step_cond_dim == (4 + 4) * POLICY.per_view_dim + 16
    assert agent._build_cond(observation_of(cache, agent)).shape == (2, 2, POLICY.cond_dim)


def test_a_trunk_for_a_stream_that_is_not_seen_is_refused(cache: FeatureCache) -> None:
    with pytest.raises(ConfigError, match=r"policy\.trunks names 'tap', .* did you mean 'top'\?"):
        VLAAgent.for_cache(configured(trunks={"tap": "linear"}), cache.metadata)


def test_an_agent_acts_on_the_part_of_its_chunk_that_is_executed(cache: FeatureCache) -> None:
    agent = awake_agent(VLAAgent.for_cache(POLICY, cache.metadata))
    observation, noise = observation_of(cache, agent), GivenNoise(torch.randn(2, 16, 16))
    chunk = agent.predict_action_chunk(observation, random=noise)
    assert torch.equal(agent.act(observation, random=noise)[0], chunk[:, 1:9])


def test_a_seed_gives_the_same_actions_whoever_else_is_in_the_batch(cache: FeatureCache) -> None:
    agent = awake_agent(VLAAgent.for_cache(POLICY, cache.metadata))
    both = observation_of(cache, agent)
    alone = {name: tensor[1:] for name, tensor in both.items()}
    among = agent.act(both, random=SeededRows([4, 5], CPU))[0][1:]
    torch.testing.assert_close(agent.act(alone, random=SeededRows([5], CPU))[0], among, rtol=1e-4, atol=1e-5)


def test_a_task_text_is_part_of_the_observation_of_those_that_take_one(cache: FeatureCache) -> None:
    tower = TextIdentity(weights_sha256="c" * 64, feature_dim=8, max_length=64)
    plain = VLAAgent.for_cache(POLICY, cache.metadata)
    saved = plain.config.model_copy(
        update={"policy": configured(language=True, language_dim=3), "text_encoder": tower}
    )
    agent = saved.policy.build(saved)
    assert isinstance(agent, VLAAgent)
    assert agent.tasks == cache.metadata.tasks and plain.tasks == ()
    assert agent.raw_per_step_cond_dim == plain.raw_per_step_cond_dim + 3
    observation = observation_of(cache, agent)
    told = {**observation, "task": torch.randn(2, 2, 8)}
    assert agent._build_cond(told).shape == (2, 2, POLICY.cond_dim)
    for one, given, says in ((agent, observation, "needs"), (plain, told, "does not take")):
        with pytest.raises(ConfigError, match=f"{says} `task`"):
            one._build_cond(given)
