"""The task with two right ways: what counts, and an expert that takes either."""

from collections import Counter

import gymnasium
import numpy as np
import pytest

from vla.base.errors import ConfigError
from vla.rollout.worlds.detour.detour_expert import DetourExpert
from vla.rollout.worlds.detour.env import POST_RADIUS, PUCK_RADIUS, DetourEnv
from vla.rollout.worlds.detour.world import LEFT_SHARE, MAX_EPISODE_STEPS
from vla.rollout.worlds.expert import find_task


def demonstrate(seed: int, noise: float) -> tuple[dict, float, np.ndarray, float]:  # type: ignore[type-arg]
    """Return the last info and reward, the labels, and how near the puck came to the post's axis [m]."""
    env = DetourEnv()
    env.render_observations = False
    env.reset(seed=seed)
    expert, labels, nearest = DetourExpert(env, np.random.default_rng([seed, 1]), noise), [], np.inf
    for _ in range(MAX_EPISODE_STEPS):
        command = expert.act()
        labels.append(command.label)
        _, reward, _, _, info = env.step(command.executed)
        nearest = min(nearest, float(np.linalg.norm(env.puck - env.post)))
    return info, reward, np.array(labels), nearest


def test_the_expert_gets_there_by_both_ways_and_touches_nothing() -> None:
    ended = [demonstrate(seed, noise=0.0) for seed in range(40)]
    assert all(info["is_success"] and reward == 1 and not info["touched"] for info, reward, _, _ in ended)
    assert all(nearest > POST_RADIUS + PUCK_RADIUS for *_, nearest in ended)
    left = Counter(info["mode"] for info, *_ in ended)["left"] / len(ended)
    assert abs(left - LEFT_SHARE) < 0.2


def test_the_way_is_not_decided_by_the_start() -> None:
    env = DetourEnv()
    env.render_observations = False
    modes = set()
    for chance in range(12):
        env.reset(seed=3)
        expert = DetourExpert(env, np.random.default_rng(chance), noise=0.0)
        for _ in range(MAX_EPISODE_STEPS):
            info = env.step(expert.act().executed)[4]
        modes.add(info["mode"])
    assert modes == {"left", "right"}


def test_noise_disturbs_what_is_executed_and_most_demonstrations_still_succeed() -> None:
    ended = [demonstrate(seed, noise=1.0) for seed in range(40)]
    assert sum(info["is_success"] for info, *_ in ended) >= 32
    assert np.abs(np.diff(ended[0][2], axis=0)).max() < 0.03


def test_straight_on_is_into_the_post_and_never_a_success() -> None:
    env = DetourEnv()
    env.render_observations = False
    env.reset(seed=0)
    for _ in range(MAX_EPISODE_STEPS):
        _, reward, _, _, info = env.step(env.disc)
    assert info["touched"] and not info["is_success"] and reward == 0


def test_once_touched_the_disc_is_worth_nothing() -> None:
    env = DetourEnv()
    env.render_observations = False
    env.reset(seed=0)
    aside = np.array([0.0, 0.25])
    way = [*[env.post] * 20, *[env.post + aside] * 20, *[env.disc + aside] * 20, *[env.disc] * 20]
    for command in way:
        _, reward, _, _, info = env.step(command)
    assert np.linalg.norm(env.puck - env.disc) < 0.01
    assert (info["is_success"], info["touched"], reward) == (False, True, 0)


def test_a_commanded_jump_is_walked_at_the_largest_speed() -> None:
    env = DetourEnv()
    env.render_observations = False
    env.reset(seed=0)
    before = env.puck
    for _ in range(4):
        env.step(np.array([0.0, 0.3]))
    assert 0.05 < np.linalg.norm(env.puck - before) < 4 * 0.8 / 20


def test_the_same_seed_gives_the_same_episode_and_images_show_where_things_are() -> None:
    env = DetourEnv(render_height=48, render_width=64)
    first, _ = env.reset(seed=5)
    assert first["pixels"]["top"].shape == (48, 64, 3)
    places = env.post, env.disc
    other, _ = env.reset(seed=6)
    assert (first["pixels"]["top"] != other["pixels"]["top"]).any()
    again, _ = env.reset(seed=5)
    np.testing.assert_array_equal(again["pixels"]["top"], first["pixels"]["top"])
    np.testing.assert_array_equal((env.post, env.disc), places)
    env.close()


def test_demonstrations_begin_at_nine_places_and_rollouts_anywhere() -> None:
    places = {}
    for repeated in (True, False):
        env = DetourEnv(repeated=repeated)
        env.render_observations = False
        found = set()
        for seed in range(60):
            env.reset(seed=seed)
            assert abs(env.post[1]) <= 0.03 and abs(env.disc[1]) <= 0.1 and not env.puck.any()
            found.add((env.post[1], env.disc[1]))
        places[repeated] = len(found)
    assert places == {True: 9, False: 60}
    assert find_task("detour").env_kwargs == {"repeated": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"render_height": 0}, "render_height must be"), ({"render_mode": "human"}, "render_mode must be")],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DetourEnv(**arguments)  # type: ignore[arg-type]


def test_an_action_of_another_form_is_refused() -> None:
    env = DetourEnv()
    env.render_observations = False
    env.reset(seed=0)
    for action in (np.zeros(3), np.array([np.nan, 0.0])):
        with pytest.raises(ValueError, match="two finite numbers"):
            env.step(action)


def test_an_episode_has_sixty_four_steps() -> None:
    import vla.rollout  # noqa: F401  it registers the worlds

    assert gymnasium.spec("vla/Detour-v0").max_episode_steps == MAX_EPISODE_STEPS == 64


def test_the_mean_of_both_ways_touches_the_post_within_a_chunk() -> None:
    ways = []
    for side in (1.0, -1.0):
        env = DetourEnv()
        env.render_observations = False
        env.reset(seed=0)
        expert = DetourExpert(env, np.random.default_rng(0), noise=0.0)
        expert.side = side
        commands = [expert.act() for _ in range(1)]
        for _ in range(7):
            env.step(commands[-1].executed)
            commands.append(expert.act())
        ways.append([command.label for command in commands])
    env = DetourEnv()
    env.render_observations = False
    env.reset(seed=0)
    for command in np.mean(ways, axis=0):
        info = env.step(command)[4]
    assert info["touched"]
