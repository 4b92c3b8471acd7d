"""gym-aloha in vla. In an environment of its own: make aloha."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from fakes import fake_spec, write_cache

import vla.rollout  # noqa: F401  registers the environments
from vla.base.errors import ConfigError
from vla.cli import main
from vla.embed import FrozenEncoder, SiglipConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.rollout.worlds.aloha.world import CAMERAS, STATE_NAMES

pytestmark = [
    pytest.mark.aloha,
    # What dm_control and gym-aloha warn about is theirs.
    pytest.mark.filterwarnings("ignore"),
]
ENCODER = "siglip2-tiny-random"
VIEWS = ("top", "angle", "left_pillar")
AT_REST = np.array([0, -0.96, 1.16, 0, -0.3, 0, 0.5] * 2)


def make(env_id: str = "vla/AlohaTransferCube-v0", **arguments: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(env_id, render_mode="rgb_array", **arguments)


def test_an_episode_begins_as_in_gym_aloha_with_the_same_seed() -> None:
    ours, theirs = make(), make("gym_aloha:gym_aloha/AlohaTransferCube-v0", obs_type="pixels_agent_pos")
    for seed in (0, 7):
        seen, expected = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        assert np.array_equal(seen["pixels"]["top"], expected["pixels"]["top"])
        np.testing.assert_allclose(seen["agent_pos"], expected["agent_pos"], atol=1e-6)


def test_every_camera_of_the_scene_can_be_looked_through() -> None:
    env = make(cameras=list(CAMERAS), render_height=48, render_width=64)
    views = env.reset(seed=0)[0]["pixels"]
    assert list(views) == list(CAMERAS)
    assert all(view.shape == (48, 64, 3) and view.std() > 5 for view in views.values())
    assert len({view.tobytes() for view in views.values()}) == len(CAMERAS)


def test_the_pose_that_arms_start_in_is_within_the_action_space() -> None:
    env = make()
    assert env.action_space.contains(AT_REST.astype(np.float32))


def test_nothing_is_rendered_while_nobody_looks() -> None:
    env = make(render_height=48, render_width=64)
    first = env.reset(seed=0)[0]["pixels"]["top"]
    env.unwrapped.render_observations = False  # type: ignore[attr-defined]
    observation, _, _, _, info = env.step(AT_REST + 0.3)
    assert info["render_s"] == 0
    assert np.array_equal(observation["pixels"]["top"], first)


def test_an_unknown_camera_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no camera 'angel'; did you mean 'angle'\?"):
        make(cameras=["angel"])


def untrained_policy(root: Path) -> Path:
    """Save a policy of random weights that looks through three cameras of ALOHA."""
    encoder = FrozenEncoder.load(SiglipConfig(id=ENCODER, device="cpu"), VIEWS)
    spec = fake_spec(
        encoder=encoder.identity,
        dim=encoder.writes[0].channels,
        cameras=VIEWS,
        state_dim=len(STATE_NAMES),
        action_dim=len(STATE_NAMES),
    )
    torch.manual_seed(0)
    small = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)
    agent = VLAAgent.for_cache(small, write_cache(root / "cache", spec).metadata)
    agent.save_pretrained(root / "policy")
    return root / "policy"


@pytest.mark.parametrize(
    ("env_id", "settings"),
    [
        ("vla/AlohaTransferCube-v0", ["env.kwargs.render_height=96", "env.kwargs.render_width=128"]),
        # The package's own environment has one camera; here it stands for all three.
        (
            "gym_aloha/AlohaTransferCube-v0",
            ["env.clip_actions=false", *(f"env.cameras.{view}=top" for view in VIEWS)],
        ),
    ],
)
def test_a_policy_is_rolled_out_headless_through_several_cameras(
    env_id: str,
    settings: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--env", env_id, "--episodes", "1", "--num-envs", "1", "--device", "cpu"]
    arguments += [
        f"--set={setting}" for setting in ["rollout.videos=1", "env.kwargs.max_episode_steps=16", *settings]
    ]
    with pytest.raises(SystemExit) as stopped:
        main(["rollout", str(untrained_policy(tmp_path)), *arguments, "--out", "results", "--json"])
    captured = capsys.readouterr()
    assert not stopped.value.code, captured.err
    result = json.loads(captured.out)
    assert result["aggregated"]["n_episodes"] == 1
    assert (tmp_path / "results/videos/eval_episode_0.mp4").stat().st_size > 0
