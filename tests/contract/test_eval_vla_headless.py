"""The live policy: larger renders resized to 256x256, its own encoder, chunks, several environments."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import ENDLESS_ID, ENV_ID
from fakes import CAMERAS, fake_spec, write_cache, write_vision_checkpoint

from vla.base.errors import EncoderError, EnvironmentSetupError
from vla.embed import EncoderConfig, FrozenEncoder
from vla.policy.agent import VLAAgent
from vla.policy.policy_config import PolicyConfig
from vla.policy.training.run import RunDirectory
from vla.rollout.evaluate.evaluate import evaluate
from vla.rollout.evaluate.validation import ValidationRollouts
from vla.rollout.live import LivePolicy
from vla.rollout.rollout_config import EnvConfig, RolloutConfig

SMALL = PolicyConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)


@pytest.fixture(scope="module")
def encoder(encoder_dir: Path) -> FrozenEncoder:
    return FrozenEncoder.load(EncoderConfig(id=str(encoder_dir), device="cpu"))


@pytest.fixture(scope="module")
def policy(encoder: FrozenEncoder, tmp_path_factory: pytest.TempPathFactory) -> LivePolicy:
    spec = fake_spec(encoder=encoder.identity, preprocessing=encoder.preprocessing)
    cache = write_cache(tmp_path_factory.mktemp("cache"), spec)
    torch.manual_seed(0)
    return LivePolicy(VLAAgent.for_cache(SMALL, cache.metadata), encoder)


def observation(size: tuple[int, int], batch: int = 2) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = {c: rng.integers(0, 256, (batch, 2, *size, 3), dtype=np.uint8) for c in CAMERAS}
    return pixels, rng.normal(size=(batch, 2, 16)).astype(np.float32)


def test_renders_of_any_size_give_eight_actions_a_robot(policy: LivePolicy) -> None:
    assert policy.encoder.eval_image_resize_shape == (256, 256)
    for size in ((480, 640), (256, 256)):
        actions, timing = policy.act(*observation(size), seeds=[1, 2])
        assert actions.shape == (2, 8, 16)
        assert timing.encode_s > 0 and timing.head_s > 0


def test_executed_actions_start_at_the_current_observation(policy: LivePolicy) -> None:
    pixels, state = observation((256, 256), batch=1)
    flat = {camera: frames[0] for camera, frames in pixels.items()}
    features = {c: torch.from_numpy(f)[None] for c, f in policy.encoder.encode_views(flat).items()}
    noise = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(5))
    chunk = policy.agent.predict_action_chunk(features, torch.from_numpy(state), noise=lambda: noise)
    actions, _ = policy.act(pixels, state, seeds=[5])
    np.testing.assert_allclose(actions[0], chunk[0, 1:9].numpy(), atol=1e-5)


def test_a_robots_actions_do_not_depend_on_the_others_in_the_batch(policy: LivePolicy) -> None:
    pixels, state = observation((256, 256))
    together, _ = policy.act(pixels, state, seeds=[1, 2])
    alone, _ = policy.act({c: frames[1:] for c, frames in pixels.items()}, state[1:], seeds=[2])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-3)


def test_a_policy_of_another_encoder_is_refused_naming_both(policy: LivePolicy, tmp_path: Path) -> None:
    other = FrozenEncoder.load(EncoderConfig(id=str(write_vision_checkpoint(tmp_path, seed=1)), device="cpu"))
    with pytest.raises(EncoderError) as caught:
        LivePolicy(policy.agent, other)
    assert other.identity.describe() in str(caught.value)
    assert policy.encoder.identity.describe() in str(caught.value)


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
    with pytest.raises(EnvironmentSetupError, match=r"looks through camera 'r_vis', .* has: side, top"):
        evaluate(policy, env, RolloutConfig(episodes=1), tmp_path)


def test_what_an_evaluation_seldom_should_be_run_with_is_said_and_so_is_what_it_cannot_measure(
    policy: LivePolicy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = EnvConfig(id=ENDLESS_ID, kwargs={"success_key": "", "ends_after": 8, "fps": 50})
    info = evaluate(policy, env, RolloutConfig(episodes=1, videos=0), tmp_path)
    assert info["aggregated"]["pc_success"] is None and info["per_episode"][0]["success"] is None
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("rollout: ")]
    assert len(said) == 3
    assert "without max_episode_steps" in said[0] and "--set env.kwargs.max_episode_steps=N" in said[0]
    assert "demonstrations have 25 actions a second" in said[1] and "declares 50 (render_fps)" in said[1]
    assert "success was not measured" in said[2]


def test_validation_rollouts_log_no_success_that_was_not_measured(
    policy: LivePolicy, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregated = {"avg_max_reward": 2.0, "pc_success": None, "eval_s": 3.0}
    monkeypatch.setattr(
        "vla.rollout.evaluate.validation.evaluate", lambda *_: {"avg_reward": 1.0, "aggregated": aggregated}
    )
    encoder = EncoderConfig(id=str(encoder_dir), device="cpu")
    run, trained_on = RunDirectory(tmp_path), policy.agent.config
    rollouts = ValidationRollouts(run, EnvConfig(), RolloutConfig(), encoder, trained_on, 2)
    assert rollouts(policy.agent, 10) == {"avg_reward": 1.0, "avg_max_reward": 2.0, "eval_s": 3.0}


def test_validation_rollouts_have_no_seed_in_common_with_the_evaluation(
    policy: LivePolicy, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RolloutConfig] = []

    def fake(policy: LivePolicy, env: EnvConfig, config: RolloutConfig, out: Path) -> dict[str, Any]:
        asked.append(config)
        return {"avg_reward": 1.0, "aggregated": {"avg_max_reward": 1.0, "pc_success": 0.0, "eval_s": 1.0}}

    monkeypatch.setattr("vla.rollout.evaluate.validation.evaluate", fake)
    encoder = EncoderConfig(id=str(encoder_dir), device="cpu")
    run, trained_on = RunDirectory(tmp_path), policy.agent.config
    ValidationRollouts(run, EnvConfig(), RolloutConfig(seed=7), encoder, trained_on, 2)(policy.agent, 10)
    assert [(config.seed, config.episodes) for config in asked] == [(1_000_007, 2)]


def test_validation_rollouts_compile_a_copy_and_leave_the_agent_in_training_alone(
    policy: LivePolicy, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven: list[LivePolicy] = []

    def fake(policy: LivePolicy, *_: object) -> dict[str, Any]:
        driven.append(policy)
        return {"avg_reward": 1.0, "aggregated": {"avg_max_reward": 1.0, "pc_success": 0.0, "eval_s": 1.0}}

    monkeypatch.setattr("vla.rollout.evaluate.validation.evaluate", fake)
    encoder = EncoderConfig(id=str(encoder_dir), device="cpu")
    run, agent = RunDirectory(tmp_path), policy.agent
    ValidationRollouts(run, EnvConfig(), RolloutConfig(compile="on"), encoder, agent.config, 2)(agent, 10)
    assert agent.state_dict().keys() == driven[0].agent.state_dict().keys()
    compiled = [[m._compiled_call_impl is not None for m in a.modules()] for a in (driven[0].agent, agent)]
    assert any(compiled[0]) and not any(compiled[1])


def test_a_failing_environment_says_what_of_the_evaluation_is_lost(
    policy: LivePolicy, tmp_path: Path
) -> None:
    env = EnvConfig(id=ENV_ID, kwargs={"trouble": "raised"})
    with pytest.raises(
        EnvironmentSetupError, match=r"process [12] of 2, .*is stuck.*; 0 of 2 episodes had ended"
    ):
        evaluate(policy, env, RolloutConfig(episodes=2, num_envs=2), tmp_path)
    assert not (tmp_path / "eval_info.json").exists()
