"""LIBERO in vla. In an environment of its own: make libero."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from fakes import fake_spec, write_cache

from vla.base.errors import ConfigError
from vla.embed import FrozenEncoder, SiglipConfig
from vla.rollout.worlds.libero.libero_env import AT_REST, LiberoEnv
from vla.rollout.worlds.libero.world import (
    ACTION_NAMES,
    CAMERAS,
    DEFAULT_CAMERAS,
    MAX_EPISODE_STEPS,
    STATE_NAMES,
    SUITES,
    env_id,
)

pytestmark = [
    pytest.mark.libero,
    pytest.mark.filterwarnings("ignore"),  # what robosuite and its simulator warn about is theirs
]


def make(
    suite: str = "spatial", task: int = 0, size: tuple[int, int] = (32, 48), **arguments: Any
) -> LiberoEnv:
    return LiberoEnv(suite=suite, task=task, render_height=size[0], render_width=size[1], **arguments)


def test_the_suites_are_the_packages() -> None:
    from libero.libero.benchmark import task_maps

    assert {suite: len(task_maps[f"libero_{suite}"]) for suite in SUITES} == SUITES
    registered = {name for name in gymnasium.registry if name.startswith("vla/Libero-")}
    assert registered == {env_id(suite, task) for suite, count in SUITES.items() for task in range(count)}
    assert gymnasium.spec(env_id("90", 89)).max_episode_steps == MAX_EPISODE_STEPS["90"]


def test_an_episode_begins_in_the_stored_state_of_its_seed() -> None:
    env = make()
    env.render_observations = False
    assert env.num_initial_states == 50
    first, told = env.reset(seed=1003)
    third, _ = env.reset(seed=3)
    other, _ = env.reset(seed=4)
    assert np.array_equal(first["agent_pos"], third["agent_pos"])
    objects = [env._initial_states[k] for k in (3, 4)]
    assert not np.array_equal(*objects) and not np.array_equal(third["agent_pos"], other["agent_pos"])
    assert (
        told["task"] == "pick up the black bowl between the plate and the ramekin and place it on the plate"
    )
    assert not told["is_success"]
    env.close()


def test_state_and_images_are_the_packages_turned_by_180_degrees() -> None:
    env = make("object", 1)
    seen, _ = env.reset(seed=0)
    assert seen["pixels"].keys() == set(DEFAULT_CAMERAS) and env.observation_space.contains(seen)
    package = env._seen
    np.testing.assert_allclose(seen["agent_pos"][:3], package["robot0_eef_pos"], rtol=1e-6)
    np.testing.assert_allclose(seen["agent_pos"][6:], package["robot0_gripper_qpos"], rtol=1e-6)
    assert len(STATE_NAMES) == len(seen["agent_pos"]) == 8 and len(ACTION_NAMES) == 7
    for camera in DEFAULT_CAMERAS:
        raw = env._inner.sim.render(camera_name=camera, width=48, height=32)
        assert np.array_equal(seen["pixels"][camera], raw[::-1, ::-1]) and raw.std() > 5
    env.close()


def test_the_hand_goes_where_an_action_says() -> None:
    env = make()
    env.render_observations = False
    env.reset(seed=0)
    before = env.hand
    for _ in range(10):
        env.step(np.array([0.5, 0, 0, 0, 0, 0, -1]))
    moved = env.hand[:3] - before[:3]
    assert moved[0] > 0.03 and np.abs(moved[1:]).max() < 0.02
    _, reward, over, truncated, info = env.step(AT_REST)
    assert (reward, over, truncated, info["is_success"]) == (0.0, False, False, False)
    env.close()


def test_no_rendering_between_decisions() -> None:
    env = make(cameras=["agentview"])
    seen, _ = env.reset(seed=0)
    env.render_observations = False
    later, *_ = env.step(AT_REST)
    assert np.array_equal(seen["pixels"]["agentview"], later["pixels"]["agentview"])
    env.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "spatail"}, "no suite 'spatail'; did you mean 'spatial'"),
        ({"task": 10}, "tasks 0 to 9, no 10"),
        ({"cameras": ["agentveiw"]}, "no camera 'agentveiw'; did you mean 'agentview'"),
        ({"cameras": []}, f"different names out of {', '.join(CAMERAS)}"),
        ({"size": (0, 32)}, "render_height must be a whole number from 1 to 1024, got 0"),
    ],
)
def test_what_is_not_there_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_an_untrained_policy_is_rolled_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vla: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    cameras = ("image", "image2")  # as in the datasets
    encoder = FrozenEncoder.load(SiglipConfig(id="siglip2-tiny-random"), cameras)
    dim = encoder.writes[0].shape[-1]
    spec = fake_spec(cameras=cameras, dim=dim, state_dim=8, action_dim=7, encoder=encoder.identity)
    write_cache(tmp_path / "cache", spec)
    small = [f"--set=policy.{key}" for key in ("cond_dim=8", "n_emb=16", "n_layer=1", "n_head=2")]
    vla("train", "--cache", "cache", "--out", "run", "--steps", 0, "--set=train.val_episodes=0", *small)
    made = vla(
        *("rollout", "run", "--env", env_id("goal", 2), "--episodes", 1, "--set=rollout.videos=0"),
        '--set=env.cameras={image = "agentview", image2 = "robot0_eye_in_hand"}',
        "--set=env.kwargs={render_height = 32, render_width = 32, max_episode_steps = 16}",
    )
    assert made["aggregated"]["n_episodes"] == 1 and made["aggregated"]["pc_success"] == 0
