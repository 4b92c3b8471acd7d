"""The table of `meta_world.py`: ours beside the published figures, by tier."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from vla.base.success import format_success, wilson_interval
from vla.rollout.worlds.metaworld.tasks import TASKS, TIERS

PUBLISHED = {
    "Diffusion Policy, images": {"easy": 83.6, "medium": 31.1, "hard": 9.0, "very hard": 26.6},
    "DP3, point clouds": {"easy": 90.9, "medium": 61.6, "hard": 31.7, "very hard": 49.0},
}
"""Means [%] over all tasks of a tier, 3 training seeds, from Ze et al. (2024), arXiv 2403.03954. A seed's
figure is the mean of its five best evaluations during training, of 20 episodes each."""
TOLD = {
    "Diffusion Policy (arXiv 2506.01844)": 10.5,
    "pi0 (arXiv 2506.01844)": 47.9,
    "SmolVLA, 0.45 B (arXiv 2506.01844)": 57.3,
    "Evo-1 (arXiv 2511.04555)": 80.6,
}
"""Means of the four tiers [%]: one policy for all 50 tasks, told the task, 50 demonstrations each."""
ADAPTED, END_TO_END, ONE_POLICY = "adapted", "end to end", "one policy"
VARIANTS = {
    ADAPTED: "ours: one encoder adapted on these tasks together, frozen, a head a task",
    END_TO_END: "ours: trunk and head of one task, end to end",
    ONE_POLICY: "ours: one encoder adapted on these tasks, frozen, one head that is told the task",
}


def metaworld_table(saved: Mapping[str, Any]) -> str:
    """Return a Markdown table by tier, and one by task.

    Args:
        saved: what `meta_world.py` writes.
    """
    lines = [_row(["", *TIERS, "mean of the tiers"]), "|---" * (2 + len(TIERS)) + "|"]
    run = _variants(saved)
    for variant in run:
        rows = [row for row in saved["rows"] if row["variant"] == variant]
        tiers = [[row for row in rows if row["tier"] == tier] for tier in TIERS]
        lines.append(_row([VARIANTS[variant], *map(_cell, tiers), _mean(tiers)]))
    if {ADAPTED, END_TO_END} & {*run}:
        for name, figures in PUBLISHED.items():
            shown = [f"{value:.1f} %" for value in (*figures.values(), mean(figures.values()))]
            lines.append(_row([f"{name}, published", *shown]))
    if ONE_POLICY in run:
        lines += [
            _row([f"{name}, published", *[""] * len(TIERS), f"{figure} %"]) for name, figure in TOLD.items()
        ]
    return "\n".join([*lines, "", *_by_task(saved), "", _told(saved)])


def act_table(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return what LeRobot's ACT takes and solves beside ours, on one task.

    Args:
        ours: what `meta_world.py` writes when it runs one task both ways.
        theirs: what `lerobot_act.py` writes.
    """
    minutes = {stage: spent[0] for stage, spent in ours["minutes_of"].items()}
    (act,) = theirs["rows"]
    solved = {row["variant"]: row for row in ours["rows"]}
    theirs_spent = act["minutes"]
    begun = minutes["embed"] + minutes["adapt"]
    lines = [
        _row(["", "updates", "solved", "minutes", "of each further head"]),
        "|---" * 5 + "|",
        _spent("LeRobot's ACT", act, act["updates"], theirs_spent["data"] + theirs_spent["updates"]),
        _spent("end to end", solved[END_TO_END], ours["updates"]["images"], minutes["end to end"]),
        _spent(
            "adapted",
            solved[ADAPTED],
            sum(ours["updates"].values()),
            begun + minutes["heads"],
            minutes["heads"],
        ),
    ]
    machine = ours["machine"]
    return "\n".join(
        [
            *lines,
            "",
            f"Minutes of processor time from demonstrations to policy; {machine['cpu']}, {machine['date']}.",
        ]
    )


def _spent(
    name: str, row: Mapping[str, Any], updates: int, minutes: float, further: float | None = None
) -> str:
    """Return a row of `act_table`; whoever has no cache pays all again."""
    cells = [name, f"{updates:,}", f"{row['successes']} of {row['episodes']}", f"{minutes:.1f}"]
    return _row([*cells, f"{minutes if further is None else further:.1f}"])


def _variants(saved: Mapping[str, Any]) -> list[str]:
    """Return what was run at all."""
    return [variant for variant in VARIANTS if any(row["variant"] == variant for row in saved["rows"])]


def _cell(rows: Sequence[Mapping[str, Any]]) -> str:
    """Pool the episodes of some tasks and training seeds."""
    if not rows:
        return "not run"
    successes, episodes = (sum(row[key] for row in rows) for key in ("successes", "episodes"))
    interval = [100 * bound for bound in wilson_interval(successes, episodes)]
    count = len({row["task"] for row in rows})
    return (
        f"{format_success(100 * successes / episodes, interval)}, {count} of {_size(rows[0]['tier'])} tasks"
    )


def _mean(tiers: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Return the mean of the tiers' rates."""
    if not all(tiers):
        return "not run"
    rates = [sum(row["successes"] for row in rows) / sum(row["episodes"] for row in rows) for rows in tiers]
    return f"{100 * mean(rates):.1f} %"


def _size(tier: str) -> int:
    return sum(task.tier == tier for task in TASKS.values())


def _by_task(saved: Mapping[str, Any]) -> list[str]:
    """Say how often each task was solved, by training seed."""
    run = _variants(saved)
    lines = [_row(["task", "tier", *run]), "|---" * (2 + len(run)) + "|"]
    for task in dict.fromkeys(row["task"] for row in saved["rows"]):
        cells = []
        for variant in run:
            rows = [row for row in saved["rows"] if (row["task"], row["variant"]) == (task, variant)]
            rows.sort(key=lambda row: int(row["seed"]))
            cells.append(", ".join(f"{row['successes']} of {row['episodes']}" for row in rows) or "not run")
        lines.append(_row([task, TASKS[task].tier, *cells]))
    return lines


def _told(saved: Mapping[str, Any]) -> str:
    """Say what was run, on what, and for how long."""
    machine = saved["machine"]
    chip = machine["gpu"] or f"{machine['cores']} cores of {machine['cpu']}"
    seeds = len({row["seed"] for row in saved["rows"]})
    took = ", ".join(
        f"{stage} {cpu:.1f} ({clock:.0f})" for stage, (cpu, clock) in saved["minutes_of"].items()
    )
    return (
        f"{seeds} training seed{'s' * (seeds > 1)}, the last checkpoint of each; intervals (95 %) "
        f"are of the episodes pooled. {saved['sizes']}. {chip}, torch {machine['torch']}, {machine['date']}; "
        f"minutes of processor time (and by the clock, other work beside it): {took}. `{saved['command']}`"
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
