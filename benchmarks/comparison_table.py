"""The table of a comparison of policies, from its results; see `compare.py`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from vla.base.success import format_success, wilson_interval


def comparison_table(saved: Mapping[str, Any]) -> str:
    """Return a Markdown table, one row a variant and number of sampling steps, training seeds pooled.

    Args:
        saved: what `Comparison` writes: rows, and head_ms.
    """
    latency = {identity(row): row["ms"] for row in saved["head_ms"]}
    with_modes = any(row.get("modes") for row in saved["rows"])
    titles = ["variant", "steps", "success (95 % interval)", "by training seed", "decision of the head"]
    titles += ["ways gone"] * with_modes
    lines = [_row(titles), "|---" * len(titles) + "|"]
    for name, steps in dict.fromkeys((row["variant"], row["num_steps"]) for row in saved["rows"]):
        rows = [row for row in saved["rows"] if (row["variant"], row["num_steps"]) == (name, steps)]
        rows.sort(key=lambda row: int(row["seed"]))
        successes, episodes = (sum(row[key] for row in rows) for key in ("successes", "episodes"))
        interval = [100 * bound for bound in wilson_interval(successes, episodes)]
        seeds = ", ".join(f"{100 * row['successes'] / row['episodes']:.0f}" for row in rows)
        ms = latency.get((name, steps, None))
        cells = [name, str(steps), format_success(100 * successes / episodes, interval), seeds]
        cells += ["" if ms is None else f"{ms:.1f} ms", *([shares(rows)] * with_modes)]
        lines.append(_row(cells))
    return "\n".join([*lines, "", _told(saved)])


def shares(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the share of each mode that the environment tells apart; empty where it tells none."""
    modes: Counter[str] = Counter()
    for row in rows:
        modes.update(row.get("modes", {}))
    return ", ".join(f"{mode} {100 * count / modes.total():.0f} %" for mode, count in sorted(modes.items()))


def identity(row: Mapping[str, Any]) -> tuple[str, int, int | None]:
    """Return what a row is about; the seed is None where it is about all of them."""
    return row["variant"], row["num_steps"], row.get("seed")


def _told(saved: Mapping[str, Any]) -> str:
    """Say what was run."""
    seeds = {row["seed"] for row in saved["rows"]}
    updates = {row["train_steps"] for row in saved["rows"]}
    seconds = median(row["train_cpu_s"] for row in saved["rows"])
    numbers, episodes = ", ".join(f"{n:,}" for n in sorted(updates)), saved["rows"][0]["episodes"]
    fewer = {row["variant"]: row["episodes"] for row in saved["rows"] if row["episodes"] != episodes}
    apart = "".join(f" (`{name}`: {count})" for name, count in fewer.items())
    plural = "s" * (len(seeds) > 1)
    return (
        f"{numbers} updates, the last checkpoint, {len(seeds)} training seed{plural}, {episodes} episodes "
        f"each{apart}; a training took {seconds:.0f} s of processor time in the median. `{saved['command']}`"
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
