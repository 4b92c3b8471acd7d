"""The world of instructions: what counts, what the words say, and an expert that does as it is told."""

import gymnasium
import numpy as np
import pytest

from vla.base.errors import ConfigError
from vla.rollout.worlds.expert import find_task
from vla.rollout.worlds.instructions.env import APART, InstructionsEnv
from vla.rollout.worlds.instructions.instructions_expert import InstructionsExpert
from vla.rollout.worlds.instructions.wordings import NOUNS, OBJECTS, PADS, TASKS, Task, sentences
from vla.rollout.worlds.instructions.world import DEMONSTRATION_STEPS, MAX_EPISODE_STEPS


def blind(wordings: str = "trained") -> InstructionsEnv:
    """Return an environment that renders nothing."""
    env = InstructionsEnv(wordings=wordings)
    env.render_observations = False
    return env


def demonstrate(env: InstructionsEnv, seed: int, noise: float = 0.0) -> tuple[dict, float]:  # type: ignore[type-arg]
    """Return the last info and reward."""
    env.reset(seed=seed)
    expert = InstructionsExpert(env, np.random.default_rng([seed, 1]), noise)
    for _ in range(DEMONSTRATION_STEPS):
        _, reward, _, _, info = env.step(expert.act().executed)
    return info, reward


def go(env: InstructionsEnv, place: np.ndarray, grip: float, steps: int = 14) -> tuple[dict, float]:  # type: ignore[type-arg]
    """Command one thing for a while; return the last info and reward."""
    for _ in range(steps):
        _, reward, _, _, info = env.step(np.array([*place, grip]))
    return info, reward


def carry(env: InstructionsEnv, task: Task) -> tuple[dict, float]:  # type: ignore[type-arg]
    """Take an object to a pad and let go."""
    go(env, env.place(task.object), 0)
    go(env, env.place(task.object), 1, steps=3)
    go(env, env.place(task.pad), 1)
    return go(env, env.place(task.pad), 0, steps=6)


def test_the_expert_does_what_it_is_told_disturbed_or_not() -> None:
    env = blind()
    for seed in range(12):
        info, reward = demonstrate(env, seed, noise=float(seed % 2))
        assert info["is_success"] and reward == 1 and info["mode"] == info["asked"] == env.asked.name


def test_only_the_named_object_on_the_named_pad_counts_and_nothing_else_may_be_lifted() -> None:
    env = blind()
    env.reset(seed=0)
    asked = env.asked
    other_object = next(name for name in OBJECTS if name != asked.object)
    other_pad = next(name for name in PADS if name != asked.pad)
    for task in (Task(asked.object, other_pad), Task(other_object, asked.pad)):
        env.reset(seed=0)
        info, reward = carry(env, task)
        assert (info["is_success"], reward, info["mode"]) == (False, 0, task.name)
    info, reward = carry(env, asked)  # after another one
    assert (info["is_success"], reward) == (False, 0)
    env.reset(seed=0)
    assert carry(env, asked)[0]["is_success"]


def test_what_hangs_over_a_pad_does_not_lie_on_it() -> None:
    env = blind()
    env.reset(seed=1)
    task = env.asked
    go(env, env.place(task.object), 0)
    go(env, env.place(task.object), 1, steps=3)
    info, reward = go(env, env.place(task.pad), 1)
    assert env.held == task.object and (info["is_success"], reward, info["mode"]) == (False, 0, "")


def test_a_magnet_lifts_only_what_is_below_it_and_moves_no_other() -> None:
    env = blind()
    env.reset(seed=2)
    before = {name: env.place(name) for name in OBJECTS}
    far = max(OBJECTS, key=lambda name: float(np.linalg.norm(before[name] - env.hand)))
    go(env, env.hand, 1, steps=2)
    assert env.held == ""
    go(env, env.hand, 0, steps=1)
    carry(env, Task(far, PADS[0]))
    for name in OBJECTS:
        if name != far:
            np.testing.assert_allclose(env.place(name), before[name], atol=2e-3)


def test_every_scene_has_everything_apart_so_that_only_the_words_tell_tasks_apart() -> None:
    env = blind()
    asked, places = set(), []
    for seed in range(60):
        env.reset(seed=seed)
        asked.add(env.asked)
        found = np.array([env.place(name) for name in (*OBJECTS, *PADS)])
        distances = np.linalg.norm(found[:, None] - found[None], axis=-1) + np.eye(6)
        assert distances.min() > APART - 1e-3
        places.append(found)
    assert asked == set(TASKS) and len(TASKS) == 8
    assert np.std(places, axis=0).min() > 0.1  # no object has a place of its own


def test_the_two_lists_share_neither_sentence_nor_noun() -> None:
    trained = {text for task in TASKS for text in sentences(task)}
    unseen = {text for task in TASKS for text in sentences(task, unseen=True)}
    assert len(trained) == sum(len(sentences(task)) for task in TASKS)  # none asks for two tasks
    assert not trained & unseen and len(unseen) == 48
    assert all(not set(of_trained) & set(of_unseen) for of_trained, of_unseen in NOUNS.values())
    for text in unseen:
        assert not any(
            f" {noun} " in f" {text.strip('?')} " for trained, _ in NOUNS.values() for noun in trained
        )


@pytest.mark.parametrize("wordings", ["trained", "unseen", "shuffled", "wrong"])
def test_an_episode_tells_a_task_by_the_list_that_was_chosen(wordings: str) -> None:
    env, same = blind(wordings=wordings), 0
    for seed in range(40):
        _, info = env.reset(seed=seed)
        texts = sentences(env.told, unseen=wordings == "unseen")
        assert info["task"] in texts and info["asked"] == env.asked.name
        same += env.told == env.asked
    expected = {"trained": (40, 40), "unseen": (40, 40), "shuffled": (1, 13), "wrong": (0, 0)}[wordings]
    assert expected[0] <= same <= expected[1]


def test_lists_of_wordings_change_nothing_but_the_words() -> None:
    scenes = []
    for wordings in ("trained", "unseen"):
        env = blind(wordings=wordings)
        env.reset(seed=7)
        scenes.append((env.asked, [env.place(name).tolist() for name in (*OBJECTS, *PADS)]))
    assert scenes[0] == scenes[1]


def test_the_same_seed_gives_the_same_episode_and_images_show_where_things_are() -> None:
    env = InstructionsEnv(render_height=48, render_width=64)
    first, info = env.reset(seed=5)
    assert first["pixels"]["top"].shape == (48, 64, 3) and first["agent_pos"].tolist()[2] == 0
    other, _ = env.reset(seed=6)
    assert (first["pixels"]["top"] != other["pixels"]["top"]).any()
    again, told = env.reset(seed=5)
    np.testing.assert_array_equal(again["pixels"]["top"], first["pixels"]["top"])
    assert told["task"] == info["task"]
    env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"render_width": 0}, "render_width must be"),
        ({"render_mode": "human"}, "render_mode must be"),
        ({"wordings": "loud"}, "wordings must be one of trained, unseen, shuffled, wrong, got 'loud'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InstructionsEnv(**arguments)  # type: ignore[arg-type]


def test_an_action_of_another_form_and_reset_options_are_refused() -> None:
    env = blind()
    env.reset(seed=0)
    for action in (np.zeros(2), np.array([np.nan, 0.0, 0.0])):
        with pytest.raises(ValueError, match="three finite numbers"):
            env.step(action)
    with pytest.raises(ConfigError, match="no reset options, got: task"):
        env.reset(options={"task": "red"})


def test_it_is_registered_and_has_an_expert() -> None:
    import vla.rollout  # noqa: F401  it registers the worlds

    assert gymnasium.spec("vla/Instructions-v0").max_episode_steps == MAX_EPISODE_STEPS == 48
    assert find_task("instructions").num_steps == DEMONSTRATION_STEPS
