"""The live policy: larger renders resized to 256x256, its own encoder, chunks, several environments."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import ENDLESS_ID, ENV_ID
from fakes import CAMERAS, fake_spec, write_cache, write_vision_checkpoint

from vla.base.errors import EncoderMismatch, EnvironmentSetupError
from vla.embed import FrozenEncoder, SiglipConfig
from vla.policy.agents.policy import Policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.random import GivenNoise
from vla.policy.training.run import RunDirectory
from vla.rollout.evaluate.evaluate import evaluate
from vla.rollout.evaluate.validation import ValidationRollouts
from vla.rollout.live import LivePolicy
from vla.rollout.rollout_config import EnvConfig, RolloutConfig

SMALL = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)


@pytest.fixture(scope="module")
def encoder(encoder_dir: Path) -> FrozenEncoder:
    return FrozenEncoder.load(SiglipConfig(id=str(encoder_dir), device="cpu"), CAMERAS)


@pytest.fixture(scope="module")
def policy(encoder: FrozenEncoder, tmp_path_factory: pytest.TempPathFactory) -> LivePolicy:
    spec = fake_spec(encoder=encoder.identity, dim=encoder.writes[0].channels)
    cache = write_cache(tmp_path_factory.mktemp("cache"), spec)
    torch.manual_seed(0)
    return LivePolicy(VLAAgent.for_cache(SMALL, cache.metadata), encoder)


def observation(size: tuple[int, int], batch: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    views = {c: rng.integers(0, 256, (batch, 2, *size, 3), dtype=np.uint8) for c in CAMERAS}
    return {**views, "state": rng.normal(size=(batch, 2, 16)).astype(np.float32)}


def test_a_robot_gives_images_where_the_policy_sees_features(policy: LivePolicy) -> None:
    assert [(s.name, s.kind, s.shape) for s in policy.observes] == [
        *((camera, "image", (0, 0, 3)) for camera in CAMERAS),
        ("state", "vector", (16,)),
    ]


def test_renders_of_any_size_give_eight_actions_a_robot(policy: LivePolicy) -> None:
    assert policy.encoder is not None
    assert policy.encoder.eval_image_resize_shape == (256, 256)
    for size in ((480, 640), (256, 256)):
        actions, timing, _ = policy.act(observation(size), seeds=[1, 2])
        assert actions.shape == (2, 8, 16)
        assert timing.encode_s > 0 and timing.head_s > 0


def test_executed_actions_start_at_the_current_observation(policy: LivePolicy) -> None:
    seen = observation((256, 256), batch=1)
    assert policy.encoder is not None and isinstance(policy.policy, VLAAgent)
    features = policy.encoder.encode({camera: seen[camera][0] for camera in CAMERAS})
    known = {camera: array[None] for camera, array in features.items()}
    known["state"] = torch.from_numpy(seen["state"])
    noise = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(5))
    chunk = policy.policy.predict_action_chunk(known, random=GivenNoise(noise))
    actions = policy.act(seen, seeds=[5]).actions
    np.testing.assert_allclose(actions[0], chunk[0, 1:9].numpy(), atol=1e-5)


def test_a_robots_actions_do_not_depend_on_the_others_in_the_batch(policy: LivePolicy) -> None:
    seen = observation((256, 256))
    together = policy.act(seen, seeds=[1, 2]).actions
    alone = policy.act({name: array[1:] for name, array in seen.items()}, seeds=[2]).actions
    np.testing.assert_allclose(together[1], alone[0], atol=1e-3)


def test_features_are_not_taken_off_their_device(policy: LivePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy.encoder is not None
    written: list[int] = []
    encode, act = policy.encoder.encode, policy.policy.act

    def remember(views: Any) -> Any:
        features = encode(views)
        written.extend(array.data_ptr() for array in features.values())
        return features

    def compare(known: Any, *arguments: Any) -> Any:
        assert [known[camera].data_ptr() for camera in CAMERAS] == written  # the very tensors
        return act(known, *arguments)

    monkeypatch.setattr(policy.encoder, "encode", remember)
    monkeypatch.setattr(policy.policy, "act", compare)
    policy.act(observation((256, 256)), seeds=[1, 2])


def test_a_policy_of_another_encoder_is_refused_naming_both(policy: LivePolicy, tmp_path: Path) -> None:
    checkpoint = write_vision_checkpoint(tmp_path, seed=1)
    other = FrozenEncoder.load(SiglipConfig(id=str(checkpoint), device="cpu"), CAMERAS)
    assert policy.encoder is not None
    with pytest.raises(EncoderMismatch) as caught:
        LivePolicy(policy.policy, other)
    assert (caught.value.trained, caught.value.found) == (policy.encoder.identity, other.identity)
    assert other.identity.describe() in str(caught.value)
    assert policy.encoder.identity.describe() in str(caught.value)
    with pytest.raises(EncoderMismatch, match="the encoder named is none"):
        LivePolicy(policy.policy, None)


@pytest.mark.slow
def test_episodes_are_evaluated_side_by_side_with_results_by_seed(policy: LivePolicy, tmp_path: Path) -> None:
    settings = RolloutConfig(episodes=3, seed=50, num_envs=2, videos=1)
    info = evaluate(policy, EnvConfig(id=ENV_ID), settings, tmp_path)
    assert json.loads((tmp_path / "eval_info.json").read_text()) == info
    assert [episode["seed"] for episode in info["per_episode"]] == [50, 51, 52]
    assert info["aggregated"]["video_paths"] == ["videos/eval_episode_0.mp4"]
    assert (tmp_path / "videos/eval_episode_0.mp4").stat().st_size > 0
    assert info["latency_ms"].keys() == {"encode", "head"}  # this environment reports no render times

    alone = evaluate(
        policy, EnvConfig(id=ENV_ID), settings.model_copy(update={"num_envs": 1}), tmp_path / "b"
    )
    assert alone["per_episode"] == info["per_episode"]  # a thread computes for one environment at a time

    again = evaluate(policy, EnvConfig(id=ENV_ID), settings, tmp_path / "c")
    assert again["per_episode"] == info["per_episode"]
    first, second = (folder / "videos/eval_episode_0.mp4" for folder in (tmp_path, tmp_path / "c"))
    assert first.read_bytes() == second.read_bytes()


def test_an_environment_that_lacks_a_camera_is_refused_naming_its_own(
    policy: LivePolicy, tmp_path: Path
) -> None:
    env = EnvConfig(id=ENV_ID, kwargs={"cameras": ["top", "side"]})
    with pytest.raises(EnvironmentSetupError, match=r"through camera 'r_vis', .* has: side, state, top;"):
        evaluate(policy, env, RolloutConfig(episodes=1), tmp_path)


def test_what_an_evaluation_seldom_should_be_run_with_is_said_and_so_is_what_it_cannot_measure(
    policy: LivePolicy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = EnvConfig(id=ENDLESS_ID, kwargs={"success_key": "", "ends_after": 8, "fps": 50})
    info = evaluate(policy, env, RolloutConfig(episodes=1, videos=0), tmp_path)
    assert info["aggregated"]["pc_success"] is None and info["per_episode"][0]["success"] is None
    lines = filter(str.strip, capsys.readouterr().err.splitlines())
    said = [line for line in lines if not line.startswith("rollout: ")]
    assert len(said) == 3
    assert "without max_episode_steps" in said[0] and "--set env.kwargs.max_episode_steps=N" in said[0]
    assert "demonstrations have 25 actions a second" in said[1] and "declares 50 (render_fps)" in said[1]
    assert "success was not measured" in said[2]


def rollouts(
    encoder_dir: Path, policy: LivePolicy, run: Path, config: RolloutConfig | None = None
) -> ValidationRollouts:
    encoder = SiglipConfig(id=str(encoder_dir), device="cpu")
    settings = config or RolloutConfig()
    return ValidationRollouts(RunDirectory(run), EnvConfig(), settings, encoder, policy.policy.config, 2)


FIGURES = {"avg_reward": 1.0, "aggregated": {"avg_max_reward": 2.0, "pc_success": None, "eval_s": 3.0}}


def test_validation_rollouts_log_no_success_that_was_not_measured(
    policy: LivePolicy, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla.rollout.evaluate.validation.evaluate", lambda *_: FIGURES)
    found = rollouts(encoder_dir, policy, tmp_path)(policy.policy, 10)
    assert found == {"avg_reward": 1.0, "avg_max_reward": 2.0, "eval_s": 3.0}


def test_validation_rollouts_have_no_seed_in_common_with_the_evaluation(
    policy: LivePolicy, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RolloutConfig] = []

    def fake(policy: LivePolicy, env: EnvConfig, config: RolloutConfig, out: Path) -> dict[str, Any]:
        asked.append(config)
        return FIGURES

    monkeypatch.setattr("vla.rollout.evaluate.validation.evaluate", fake)
    rollouts(encoder_dir, policy, tmp_path, RolloutConfig(seed=7))(policy.policy, 10)
    assert [(config.seed, config.episodes) for config in asked] == [(1_000_007, 2)]


def test_validation_rollouts_compile_a_copy_and_leave_the_policy_in_training_alone(
    policy: LivePolicy, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven: list[Policy] = []

    def fake(live: LivePolicy, *_: object) -> dict[str, Any]:
        driven.append(live.policy)
        return FIGURES

    monkeypatch.setattr("vla.rollout.evaluate.validation.evaluate", fake)
    trained = policy.policy
    rollouts(encoder_dir, policy, tmp_path, RolloutConfig(compile="on"))(trained, 10)
    assert trained.state_dict().keys() == driven[0].state_dict().keys()
    compiled = [[m._compiled_call_impl is not None for m in p.modules()] for p in (driven[0], trained)]
    assert any(compiled[0]) and not any(compiled[1])


def test_validation_rollouts_with_another_encoder_are_refused_before_training(
    policy: LivePolicy, tmp_path: Path
) -> None:
    other = write_vision_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(EncoderMismatch):
        rollouts(other, policy, tmp_path / "run")


def test_a_failing_environment_says_what_of_the_evaluation_is_lost(
    policy: LivePolicy, tmp_path: Path
) -> None:
    env = EnvConfig(id=ENV_ID, kwargs={"trouble": "raised"})
    with pytest.raises(
        EnvironmentSetupError, match=r"process [12] of 2, .*is stuck.*; 0 of 2 episodes had ended"
    ):
        evaluate(policy, env, RolloutConfig(episodes=2, num_envs=2), tmp_path)
    assert not (tmp_path / "eval_info.json").exists()
