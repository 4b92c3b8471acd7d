"""Sensors from environment to action: a point stream and a series, a policy that has no encoder, pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_env import SENSORS_ID
from fakes import awake_agent, fake_spec, write_cache
from test_serve import serving

from vla.base.errors import EnvironmentSetupError, ServerError
from vla.cache import Stream
from vla.client import PolicyClient
from vla.embed import FrozenEncoder, PixelsConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.rollout.evaluate.evaluate import evaluate, require_environment
from vla.rollout.live import LivePolicy, load_encoder
from vla.rollout.rollout_config import EnvConfig, RolloutConfig
from vla.rollout.worlds.make_env import make_env

SMALL = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)
SENSORS = (
    Stream(name="lidar", kind="points", dtype="float32", shape=(8, 4), key="observation.lidar"),
    Stream(name="imu", kind="series", dtype="float32", shape=(5, 6), key="observation.imu"),
)
ENV = EnvConfig(id=SENSORS_ID)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> LivePolicy:
    """Return a policy that observes sensors and the state, and sees nothing."""
    spec = fake_spec(cameras=(), sensors=SENSORS, state_dim=3, action_dim=3)
    cache = write_cache(tmp_path_factory.mktemp("cache"), spec)
    agent = awake_agent(VLAAgent.for_cache(SMALL, cache.metadata))
    assert load_encoder(PixelsConfig(), agent.config) is None
    return LivePolicy(agent, None)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> LivePolicy:
    """Return a policy with a trunk on the pixels of a camera, 40 x 40, and a sensor."""
    encoder = FrozenEncoder.load(PixelsConfig(image_size=(40, 40), device="cpu"), ("top",))
    pixels = encoder.writes[0]
    spec = fake_spec(sensors=SENSORS[:1], state_dim=3, action_dim=3, cameras=())
    spec = fake_spec(
        cameras=(),
        state_dim=3,
        action_dim=3,
        streams=(pixels, *spec.streams),
        encoders={encoder.identity.digest: encoder.identity},
    )
    cache = write_cache(tmp_path_factory.mktemp("cache"), spec)
    torch.manual_seed(0)
    return LivePolicy(awake_agent(VLAAgent.for_cache(SMALL, cache.metadata)), encoder)


def history(live: LivePolicy) -> dict[str, np.ndarray]:
    observation, _ = make_env(ENV).reset(seed=0)
    return {name: np.stack([value, value])[None] for name, value in observation.items()}


def test_a_policy_of_sensors_is_rolled_out_without_an_encoder(policy: LivePolicy, tmp_path: Path) -> None:
    info = evaluate(policy, ENV, RolloutConfig(episodes=2, num_envs=2, videos=0), tmp_path)
    assert info["aggregated"]["pc_success"] == 100.0
    assert all(np.isfinite(episode["sum_reward"]) for episode in info["per_episode"])


@pytest.mark.parametrize("name", ["lidar", "imu", "state"])
def test_every_sensor_changes_the_actions_and_no_other_stream_is_needed(
    policy: LivePolicy, name: str
) -> None:
    seen = {stream.name: history(policy)[stream.name] for stream in policy.observes}
    before = policy.act(seen, [0]).actions
    moved = np.random.default_rng(0).normal(size=seen[name].shape).astype(np.float32)
    assert np.abs(policy.act({**seen, name: moved}, [0]).actions - before).max() > 1e-4


def test_renders_are_resized_to_the_pixels_that_a_trunk_was_trained_on(
    seeing: LivePolicy, tmp_path: Path
) -> None:
    assert [stream.name for stream in seeing.observes] == ["top", "lidar", "state"]
    info = evaluate(seeing, ENV, RolloutConfig(episodes=1, num_envs=1, videos=1), tmp_path)
    assert info["latency_ms"].keys() == {"encode", "head"}
    seen = history(seeing)
    noise = np.random.default_rng(0).integers(0, 256, seen["top"].shape, dtype=np.uint8)
    assert (
        np.abs(seeing.act({**seen, "top": noise}, [0]).actions - seeing.act(seen, [0]).actions).max() > 1e-6
    )


def test_a_sensor_that_is_missing_or_of_another_size_is_named_with_both_sides(policy: LivePolicy) -> None:
    trained_on = policy.policy.config
    require_environment(ENV, trained_on)
    with pytest.raises(
        EnvironmentSetupError, match=r"observes lidar \(points, .*\[8, 4\]\).*has 'lidar' as .*9, 4"
    ):
        require_environment(EnvConfig(id=SENSORS_ID, kwargs={"points": 9}), trained_on)
    with pytest.raises(
        EnvironmentSetupError, match=r"observes state \(vector, .*\), '.*' has: imu, lidar, top;"
    ):
        require_environment(EnvConfig(id=SENSORS_ID, kwargs={"agent_pos": False}), trained_on)


def test_a_client_sends_the_sensors_that_the_policy_observes(policy: LivePolicy) -> None:
    env = make_env(ENV).unwrapped
    observation, _ = env.reset(seed=0)
    with serving(policy) as url, PolicyClient(url, timeout_s=60.0) as client:
        chunk = client.act(observation, seed=3)
        assert (client.info.camera_names, client.info.encoder) == ([], "")
        with pytest.raises(ServerError, match=r"needs points 'lidar', the observation has: imu, .*state"):
            client.act({name: value for name, value in observation.items() if name != "lidar"})
    expected = policy.act(history(policy), [3]).actions[0]
    np.testing.assert_allclose(chunk.actions, expected, atol=1e-4)
