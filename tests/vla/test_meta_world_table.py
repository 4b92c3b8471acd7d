"""The table beside published figures: what is pooled, and what it says was not run."""

import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MACHINE = {"cpu": "a CPU", "cores": 2, "gpu": None, "torch": "2", "date": "2026-01-01"}


def row(task: str, tier: str, successes: int, seed: int = 0, variant: str = "adapted") -> dict[str, Any]:
    counts = {"successes": successes, "episodes": 20, "seed": seed}
    return {"variant": variant, "task": task, "tier": tier, **counts}


def made_of(rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    saved = {
        "rows": rows,
        "machine": MACHINE,
        "minutes_of": {"record": [1.25, 9.5]},
        "sizes": "Small",
        "command": "python x",
    }
    made: str = runpy.run_path(str(BENCHMARKS / "meta_world_table.py"))["metaworld_table"](saved)
    return made


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> str:
    rows = [row("reach", "easy", 10, seed=1), row("reach", "easy", 16), row("door-open", "easy", 19)]
    rows += [row("push", "hard", 0), row("push", "hard", 3, variant="end to end")]
    return made_of(rows, monkeypatch)


def test_episodes_of_a_tier_are_pooled_and_published_rows_stand_beside(table: str) -> None:
    tiers = table.partition("\n\n")[0].splitlines()
    assert tiers[0] == "|  | easy | medium | hard | very hard | mean of the tiers |"
    # 45 of 60, and nothing of 20, by Wilson's interval.
    assert (
        "| 75.0 % (62.8 to 84.2), 2 of 28 tasks | not run | 0.0 % (0.0 to 16.1), 1 of 6 tasks |" in tiers[2]
    )
    assert tiers[3].startswith("| ours: trunk and head of one task, end to end | not run | not run | 15.0 %")
    assert tiers[4] == "| Diffusion Policy, images, published | 83.6 % | 31.1 % | 9.0 % | 26.6 % | 37.6 % |"
    assert tiers[5] == "| DP3, point clouds, published | 90.9 % | 61.6 % | 31.7 % | 49.0 % | 58.3 % |"


def test_one_policy_has_its_own_published_figures_and_a_mean_of_tiers_whatever_their_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = {
        "easy": ["reach", "door-open"],
        "medium": ["sweep"],
        "hard": ["push"],
        "very hard": ["stick-push"],
    }
    rows = [row(task, tier, 20, variant="one policy") for tier, tasks in named.items() for task in tasks]
    rows[0]["successes"] = 0
    tiers = made_of(rows, monkeypatch).partition("\n\n")[0].splitlines()
    # Tasks pooled were 80 %; half of the easy ones and all of the others are 87.5.
    assert tiers[2].startswith("| ours: one encoder adapted on these tasks, frozen, one head that is told")
    assert tiers[2].endswith("| 87.5 % |")
    assert "Diffusion Policy (arXiv 2506.01844), published |  |  |  |  | 10.5 % |" in tiers[3]
    assert not any("DP3" in line for line in tiers)


def test_a_further_head_costs_only_itself_where_features_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    minutes = {"embed": 0.5, "adapt": 2.0, "heads": 0.4, "evaluate": 9.0, "end to end": 1.9}
    ours = {
        "rows": [row("push", "hard", 4), row("push", "hard", 5, variant="end to end")],
        "minutes_of": {stage: [spent, 99.0] for stage, spent in minutes.items()},
        "updates": {"images": 500, "head": 300},
        "machine": MACHINE,
    }
    spent = {"data": 5.0, "updates": 15.5, "evaluate": 1.0}
    act = {"task": "push", "successes": 7, "episodes": 20, "updates": 500, "minutes": spent}
    made = runpy.run_path(str(BENCHMARKS / "meta_world_table.py"))["act_table"](ours, {"rows": [act]})
    assert "| LeRobot's ACT | 500 | 7 of 20 | 20.5 | 20.5 |" in made
    assert "| end to end | 500 | 5 of 20 | 1.9 | 1.9 |" in made
    assert "| adapted | 800 | 4 of 20 | 2.9 | 0.4 |" in made


def test_each_task_has_its_counts_by_training_seed(table: str) -> None:
    assert "| reach | easy | 16 of 20, 10 of 20 | not run |" in table
    assert "| push | hard | 0 of 20 | 3 of 20 |" in table


def test_it_says_what_was_run_and_for_how_long(table: str) -> None:
    told = table.splitlines()[-1]
    assert told.startswith("2 training seeds, the last checkpoint of each")
    assert "2 cores of a CPU, torch 2, 2026-01-01" in told and "record 1.2 (10)" in told
