"""The Gymnasium environment `vla/SimTransfer-v0`."""

from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import vla.rollout  # noqa: F401  registers the environment
from vla.base.errors import ConfigError
from vla.rollout.worlds.sim_transfer.env import SimTransferEnv
from vla.rollout.worlds.sim_transfer.world import CAMERAS, ENV_ID, MAX_EPISODE_STEPS, SHAPES, STATE_NAMES


@pytest.fixture
def env() -> Iterator[SimTransferEnv]:
    env = SimTransferEnv(render_height=32, render_width=48, render_mode="rgb_array")
    yield env
    env.close()


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")  # joint angles are neither
def test_gymnasium_finds_nothing_to_object_to() -> None:
    env = gymnasium.make(ENV_ID, render_height=32, render_width=32, render_mode="rgb_array")
    assert isinstance(env.unwrapped, SimTransferEnv)
    env.unwrapped.render_observations = False  # Gymnasium wants equal infos, and `render_s` is a wall time
    check_env(env.unwrapped)
    env.close()


def test_an_observation_has_every_camera_and_sixteen_numbers(env: SimTransferEnv) -> None:
    observation, _ = env.reset(seed=0)
    assert tuple(observation["pixels"]) == CAMERAS
    assert {view.shape for view in observation["pixels"].values()} == {(32, 48, 3)}
    assert observation["agent_pos"].shape == (len(STATE_NAMES),) == (16,)
    assert env.observation_space.contains(observation)


def test_the_same_seed_gives_the_same_episode(env: SimTransferEnv) -> None:
    other = SimTransferEnv(render_height=32, render_width=48)
    for each in (env, other):
        each.reset(seed=3)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 16)):
        mine, theirs = env.step(action)[0], other.step(action)[0]
    np.testing.assert_array_equal(mine["agent_pos"], theirs["agent_pos"])
    for camera in CAMERAS:
        np.testing.assert_array_equal(mine["pixels"][camera], theirs["pixels"][camera])
    other.close()


def test_different_seeds_move_the_box_and_the_arms(env: SimTransferEnv) -> None:
    first = env.reset(seed=0)[0]["agent_pos"], env.box_position
    second = env.reset(seed=1)[0]["agent_pos"], env.box_position
    assert np.abs(first[0] - second[0]).max() > 0.01
    assert np.linalg.norm(first[1] - second[1]) > 0.01


def test_images_are_stale_until_observed_when_rendering_is_off(env: SimTransferEnv) -> None:
    env.render_observations = False
    blank, info = env.reset(seed=0)
    assert not blank["pixels"]["top"].any()
    assert info["render_s"] == 0.0
    fresh = env.observe()
    stale, _, _, _, _ = env.step(np.full(16, 0.5))
    np.testing.assert_array_equal(stale["pixels"]["front"], fresh["pixels"]["front"])
    assert not np.array_equal(env.observe()["pixels"]["front"], fresh["pixels"]["front"])


def test_time_spent_rendering_is_told(env: SimTransferEnv) -> None:
    _, info = env.reset(seed=0)
    assert info["render_s"] > 0


def test_render_shows_the_front_camera(env: SimTransferEnv) -> None:
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), observation["pixels"]["front"])


def test_cameras_can_be_chosen() -> None:
    env = SimTransferEnv(render_height=32, render_width=32, cameras=["top"])
    observation, _ = env.reset(seed=0)
    assert list(observation["pixels"]) == ["top"]
    assert env.render() is None
    env.close()


def test_every_camera_sees_the_red_box() -> None:
    env = SimTransferEnv(render_height=128, render_width=128)
    observation, _ = env.reset(seed=0)
    for view in observation["pixels"].values():
        red, green, blue = np.moveaxis(view.astype(int), -1, 0)
        assert ((red > 120) & (green < 60) & (blue < 60)).sum() > 20
    env.close()


def test_a_cylinder_can_take_the_place_of_the_box() -> None:
    seen = []
    for shape in SHAPES:
        env = SimTransferEnv(render_height=64, render_width=64, cameras=("top",), shape=shape)
        seen.append(env.reset(seed=0)[0]["pixels"]["top"].astype(int))
    assert np.abs(seen[0] - seen[1]).max() > 0


def test_an_episode_is_truncated_and_never_terminated() -> None:
    env = gymnasium.make(ENV_ID, render_height=32, render_width=32)
    assert isinstance(env.unwrapped, SimTransferEnv)
    env.unwrapped.render_observations = False
    observation, _ = env.reset(seed=0)
    ends = [env.step(observation["agent_pos"])[2:4] for _ in range(MAX_EPISODE_STEPS)]
    assert ends == [(False, False)] * (MAX_EPISODE_STEPS - 1) + [(False, True)]
    env.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"render_height": 0}, "render_height must be a whole number from 1 to 4096, got 0"),
        ({"render_width": 5000}, "render_width must be"),
        ({"cameras": ()}, "cameras must be different names out of r_vis, top, front"),
        ({"cameras": ("top", "top")}, "cameras must be different"),
        ({"cameras": ("topp",)}, "no camera 'topp'; did you mean 'top'?"),
        ({"shape": "ball"}, "no shape 'ball'; valid shapes: box, cylinder"),
        ({"render_mode": "human"}, "render_mode must be 'rgb_array' or None, got 'human'"),
    ],
)
def test_bad_arguments_are_refused(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SimTransferEnv(**kwargs)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_an_action_of_another_length_is_refused(env: SimTransferEnv) -> None:
    env.render_observations = False
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"an action has shape \(16,\), got \(14,\)"):
        env.step(np.zeros(14))


def test_an_action_that_is_not_finite_is_refused_by_name(env: SimTransferEnv) -> None:
    env.render_observations = False
    env.reset(seed=0)
    action = np.zeros(16)
    action[8] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity for right_joint_1\.pos"):
        env.step(action)


def test_reset_options_are_refused(env: SimTransferEnv) -> None:
    with pytest.raises(ConfigError, match="no reset options, got: box"):
        env.reset(seed=0, options={"box": 1})
