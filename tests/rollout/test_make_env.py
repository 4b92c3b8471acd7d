"""Environments of any package: found, named, converted, refused."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from fake_env import ENV_ID, SENSORS_ID
from gymnasium import spaces

from vla.base.errors import EnvironmentSetupError
from vla.rollout.rollout_config import EnvConfig
from vla.rollout.worlds.make_env import find_spec, make_env
from vla.rollout.worlds.observations import Observations


class OneCameraEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """As gym_pusht has it: one image without a name, a float64 state, other things beside them."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, obs_type: str = "state", render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        position = spaces.Box(-9, 9, (2,), np.float64)
        image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
        seen = spaces.Dict({"pixels": image, "agent_pos": position, "environment_state": position})
        self.observation_space: Any = seen if obs_type == "pixels_agent_pos" else position
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.last_action = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        state = np.array([0.1, 0.2])
        return {"pixels": np.full((8, 8, 3), 7, np.uint8), "agent_pos": state, "environment_state": state}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        return self.reset()[0], 0.0, False, False, {}


gymnasium.register(
    "vla-tests/OneCamera-v0",
    entry_point=lambda **arguments: OneCameraEnv(**arguments),
    kwargs={"obs_type": "state"},
    max_episode_steps=9,
)


def make(env_id: str = ENV_ID, **settings: Any) -> gymnasium.Env[Any, Any]:
    return make_env(EnvConfig(id=env_id, **settings))


def test_an_unnamed_image_becomes_the_camera_image_and_the_state_float32() -> None:
    observation, _ = make("vla-tests/OneCamera-v0").reset(seed=0)
    assert list(observation) == ["image", "state", "environment_state"]
    assert observation["image"].shape == (8, 8, 3)
    assert observation["state"].dtype == np.float32
    np.testing.assert_allclose(observation["state"], [0.1, 0.2], rtol=1e-6)


def test_every_further_array_of_numbers_is_a_stream_of_its_name_and_the_rest_is_dropped() -> None:
    env = make(SENSORS_ID)
    observation, _ = env.reset(seed=0)
    assert {name: (value.dtype.name, value.shape) for name, value in observation.items()} == {
        "top": ("uint8", (16, 16, 3)),
        "lidar": ("float32", (8, 4)),
        "imu": ("float32", (5, 6)),
        "state": ("float32", (3,)),
    }
    assert env.observation_space.contains(observation)


def test_an_environment_may_have_sensors_alone() -> None:
    observation, _ = make(SENSORS_ID, kwargs={"pixels": False, "agent_pos": False}).reset(seed=0)
    assert list(observation) == ["lidar", "imu"]


def test_environments_that_can_show_cameras_are_asked_to() -> None:
    with pytest.raises(EnvironmentSetupError, match=r"observes Box.*env\.kwargs"):
        make("vla-tests/OneCamera-v0", kwargs={"obs_type": "state"})  # unless the user wants otherwise


def test_cameras_take_the_names_of_the_policy_and_the_others_are_dropped() -> None:
    env = make(cameras={"wrist": "r_vis", "above": "top"})
    observation, _ = env.reset(seed=0)
    assert list(observation) == ["wrist", "above", "state"]
    assert env.observation_space.contains(observation)


def test_one_camera_can_stand_for_two() -> None:
    observation, _ = make("vla-tests/OneCamera-v0", cameras={"a": "image", "b": "image"}).reset(seed=0)
    np.testing.assert_array_equal(observation["a"], observation["b"])


def test_a_camera_that_is_not_there_is_refused_naming_those_that_are() -> None:
    with pytest.raises(EnvironmentSetupError, match=r"maps 'wrist' to 'hand', but .* has: front, r_vis, top"):
        make(cameras={"wrist": "hand"})


def with_depth() -> gymnasium.Env[Any, Any]:
    image, depth = spaces.Box(0, 255, (8, 8, 3), np.uint8), spaces.Box(0, 9, (8, 8), np.float32)
    env = OneCameraEnv("pixels_agent_pos")
    position = env.observation_space["agent_pos"]
    views = spaces.Dict({"top": image, "depth": depth})
    env.observation_space = spaces.Dict({"pixels": views, "agent_pos": position})
    return env


def test_a_view_that_is_no_image_is_dropped_where_cameras_are_named() -> None:
    env = Observations(with_depth(), {"above": "top"})
    frames = {"top": np.zeros((8, 8, 3), np.uint8), "depth": np.zeros((8, 8), np.float32)}
    seen = env.observation({"pixels": frames, "agent_pos": np.zeros(2)})
    assert list(seen) == ["above", "state"]
    assert env.observation_space.contains(seen)


@pytest.mark.parametrize("cameras", [{}, {"above": "depth"}])
def test_a_view_that_is_looked_at_and_no_image_is_named_with_how_to_choose(cameras: dict[str, str]) -> None:
    with pytest.raises(
        EnvironmentSetupError, match=r"view 'depth' .*float32.*--set env\.cameras\.NAME=VIEW.* one of top$"
    ):
        Observations(with_depth(), cameras)


def test_actions_are_limited_unless_the_environment_declares_too_little() -> None:
    limited, free = make("vla-tests/OneCamera-v0"), make("vla-tests/OneCamera-v0", clip_actions=False)
    assert isinstance(limited.action_space, spaces.Box) and isinstance(free.action_space, spaces.Box)
    assert limited.action_space.high.max() == 1
    assert np.isinf(free.action_space.high).all()
    free.reset(seed=0)
    free.step(np.full(2, 50, np.float32))


def test_the_package_before_the_slash_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_robots.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('some_robots/Arm-v0', entry_point='fake_env:CountEnv', max_episode_steps=5)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_spec("some_robots/Arm-v0").max_episode_steps == 5


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(EnvironmentSetupError, match=r"package 'gym_nowhere', which cannot be imported"):
        make("gym_nowhere/Arm-v0")
    with pytest.raises(EnvironmentSetupError, match=r"package 'gym_nowhere', which cannot be imported"):
        make("gym_nowhere:Arm-v0")


def test_an_unknown_environment_says_how_to_name_one() -> None:
    with pytest.raises(
        EnvironmentSetupError, match=r"no environment is registered as 'Nothing-v0'.*module:id"
    ):
        make("Nothing-v0")


def test_arguments_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(EnvironmentSetupError, match=r"cannot be made with .*unexpected keyword .*'colour'"):
        make(kwargs={"colour": 1})


@pytest.mark.parametrize("error", [ValueError, AssertionError, KeyError, NotImplementedError, RuntimeError])
def test_whatever_an_environment_raises_on_a_wrong_value_is_one_line(error: type[Exception]) -> None:
    def refuse(**arguments: Any) -> gymnasium.Env[Any, Any]:
        raise error("task must be push")

    gymnasium.register("vla-tests/Refusing-v0", entry_point=refuse)
    try:
        with pytest.raises(
            EnvironmentSetupError,
            match=rf"'vla-tests/Refusing-v0' .*kwargs .*'task': 'pull'.*: {error.__name__}: .*must be push",
        ):
            make("vla-tests/Refusing-v0", kwargs={"task": "pull"})
    finally:
        del gymnasium.registry["vla-tests/Refusing-v0"]


def test_an_environment_without_cameras_shows_what_it_observes() -> None:
    env = gymnasium.make("Pendulum-v1")
    with pytest.raises(EnvironmentSetupError, match=r"'Pendulum-v1' observes Box.*'agent_pos'"):
        Observations(env, {})
