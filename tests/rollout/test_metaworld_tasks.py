"""What is known of Meta-World without its package."""

import sys
from collections import Counter

import pytest

from vla.base.errors import EnvironmentSetupError
from vla.rollout.worlds.expert import find_task
from vla.rollout.worlds.metaworld.tasks import TASKS
from vla.rollout.worlds.metaworld.world import MIN_SOLVED_STEPS


def test_tiers_are_as_large_as_published() -> None:
    counts = Counter(task.tier for task in TASKS.values())
    assert counts == {"easy": 28, "medium": 11, "hard": 6, "very hard": 5}


def test_each_task_is_found_by_its_name_and_says_what_to_do() -> None:
    for name, task in TASKS.items():
        found = find_task(f"metaworld/{name}")
        assert (found.env_kwargs, found.instruction) == ({"task": name}, task.instruction)
    assert len({task.instruction for task in TASKS.values()}) == len(TASKS)


def test_a_demonstration_counts_after_five_solved_steps() -> None:
    task = find_task("metaworld/reach")
    assert not task.is_solved(0.0, {"is_success": True, "solved_steps": MIN_SOLVED_STEPS - 1})
    assert task.is_solved(0.0, {"is_success": True, "solved_steps": MIN_SOLVED_STEPS})


def test_without_the_package_one_line_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.setitem(sys.modules, "metaworld.env_dict", None)
    with pytest.raises(
        EnvironmentSetupError, match=r"need the package metaworld .*; run make metaworld, then"
    ):
        find_task("metaworld/reach").open_env({})
