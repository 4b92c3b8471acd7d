"""The table of `instructions.py`, from its results."""

from collections.abc import Mapping
from typing import Any

from vla.base.success import format_success, wilson_interval

SAYS = {
    "trained": "as in the demonstrations",
    "unseen": "in words and sentences never trained on",
    "shuffled": "of a task drawn by itself (chance 12.5 %)",
    "wrong": "of another task (0 % if it is followed)",
}
"""What an instruction is, by list of wordings."""


def instructions_table(saved: Mapping[str, Any]) -> str:
    """Return two Markdown tables: by list of wordings, and of the first two lists by what was asked.

    Args:
        saved: what `instructions.py` writes.
    """
    found = saved["wordings"]
    lines = ["| the instruction is | success (95 % interval) | did as it was told |", "|---|---|---|"]
    for name, row in found.items():
        told = f"{100 * row['did_as_told'] / row['episodes']:.0f} %"
        lines.append(f"| {SAYS[name]} | {_success(row['successes'], row['episodes'])} | {told} |")
    both = [name for name in ("trained", "unseen") if name in found]
    lines += ["", f"| asked | {' | '.join(both)} |", "|---" * (1 + len(both)) + "|"]
    for asked in sorted({asked for name in both for asked in found[name]["asked"]}):
        lines.append(f"| {asked} | {' | '.join(_share(found[name]['asked'].get(asked)) for name in both)} |")
    episodes = {row["episodes"] for row in found.values()}
    machine = saved["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}"
    counts = " or ".join(map(str, sorted(episodes)))
    return "\n".join([*lines, "", f"{counts} episodes a list. {where}. `{saved['command']}`"])


def _success(successes: int, episodes: int) -> str:
    interval = [100 * bound for bound in wilson_interval(successes, episodes)]
    return format_success(100 * successes / episodes, interval)


def _share(counted: Mapping[str, Any] | None) -> str:
    if counted is None:
        return ""
    return f"{round(counted['pc_success'] * counted['n_episodes'] / 100)} of {counted['n_episodes']}"
