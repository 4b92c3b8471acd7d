"""The table of `meta_world.py`: ours beside the published figures, by tier."""

from collections.abc import Mapping, Sequence
from typing import Any

from vla.base.success import format_success, wilson_interval
from vla.rollout.worlds.metaworld.tasks import TASKS, TIERS

PUBLISHED = {
    "Diffusion Policy, images": {"easy": 83.6, "medium": 31.1, "hard": 9.0, "very hard": 26.6},
    "DP3, point clouds": {"easy": 90.9, "medium": 61.6, "hard": 31.7, "very hard": 49.0},
}
"""Means [%] over all tasks of a tier, 3 training seeds, from Ze et al. (2024), arXiv 2403.03954. A seed's
figure is the mean of its five best evaluations during training, of 20 episodes each."""
ADAPTED, END_TO_END = "adapted", "end to end"
VARIANTS = {
    ADAPTED: "ours: one encoder adapted on these tasks together, frozen, a head a task",
    END_TO_END: "ours: trunk and head of one task, end to end",
}


def metaworld_table(saved: Mapping[str, Any]) -> str:
    """Return a Markdown table by tier, and one by task.

    Args:
        saved: what `meta_world.py` writes.
    """
    lines = [_row(["", *TIERS]), "|---" * (1 + len(TIERS)) + "|"]
    for variant, told in VARIANTS.items():
        rows = [row for row in saved["rows"] if row["variant"] == variant]
        if rows:
            lines.append(_row([told, *(_cell([r for r in rows if r["tier"] == tier]) for tier in TIERS)]))
    for name, figures in PUBLISHED.items():
        lines.append(_row([f"{name}, published", *(f"{figures[tier]:.1f} %" for tier in TIERS)]))
    return "\n".join([*lines, "", *_by_task(saved), "", _told(saved)])


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


def _size(tier: str) -> int:
    return sum(task.tier == tier for task in TASKS.values())


def _by_task(saved: Mapping[str, Any]) -> list[str]:
    """Say how often each task was solved, by training seed."""
    lines = [_row(["task", "tier", *VARIANTS]), "|---" * (2 + len(VARIANTS)) + "|"]
    for task in dict.fromkeys(row["task"] for row in saved["rows"]):
        cells = []
        for variant in VARIANTS:
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
