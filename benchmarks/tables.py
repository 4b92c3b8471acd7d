"""Put the measured figures into README.md and pages of docs. No figure in them is typed by hand.

    python benchmarks/tables.py            # after a benchmark has written its results
    python benchmarks/tables.py --check    # complain if a table is not what the results say

A table stands between <!-- figures NAME --> and <!-- end -->; a file without the marks is left alone.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from adapt_table import adapt_table, lewm_table, pixels_table
from comparison_table import comparison_table
from h100_estimate import estimate_table
from instructions_table import instructions_table
from language_table import language_model_table
from meta_world_table import act_table, metaworld_table
from scale_tables import (
    DEVICES,
    Results,
    cores_table,
    find,
    growth_table,
    hours_table,
    sizes_table,
    storage_table,
)
from smolvla_table import smolvla_table
from speed_figures import ROWS, TITLES, Row

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
FILES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
DEVICE_NAMES = {"cpu": "CPU, reduced size", "cuda": "GPU"}
MISSING = "?"


def load_results(folder: Path = RESULTS) -> Results:
    """Read all result files."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def headline(results: Results) -> str:
    """Return the sentence at the top of the README."""
    factor = find(results, "train", "cpu", "from_images/factor")
    if factor is None:
        return "not measured yet"
    result = results["train-cpu"]
    cores, batch = result["machine"]["cores"], result["from_images"]["batch_size"]
    return (
        f"On {cores} CPU cores, training from the cache processes **{factor:.0f} times** as many samples per "
        f"second as training on images (SigLIP2-base, three cameras, batches of {batch}; "
        "`python benchmarks/train.py`)."
    )


def speed_table(results: Results) -> str:
    """Return the table of the README: the main figures, as far as they have been measured."""
    shown = measured_on(results)
    lines = [
        f"| SigLIP2-base, full-size policy | goal | {' | '.join(DEVICE_NAMES[device] for device in shown)} |",
        "|---|---|---|" + "---|" * (len(shown) - 1),
    ]
    for row in ROWS:
        cells = cells_of(row, results, shown)
        if row.in_readme and cells.count(MISSING) < len(cells):
            # By themselves these names do not say which command they belong to.
            lines.append(f"| {TITLES[row.benchmark]}: {row.what} | {row.goal} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", machines(results)])


def all_speed_tables(results: Results) -> str:
    """Return the tables of docs/speed.md: every figure, what it means, and what is missing."""
    shown = measured_on(results)
    lines: list[str] = []
    for benchmark, title in TITLES.items():
        head = " | ".join(DEVICE_NAMES[device] for device in shown)
        lines += [f"## {title}", "", f"`python benchmarks/{benchmark}.py`", ""]
        lines += [f"| figure | goal | {head} | what it is |", "|---|---|---|" + "---|" * len(shown)]
        for row in ROWS:
            cells = cells_of(row, results, shown)
            if row.benchmark == benchmark and cells.count(MISSING) < len(cells):
                lines.append(f"| {row.what} | {row.goal} | {' | '.join(cells)} | {row.meaning} |")
        lines.append("")
    lines += ["## Machines", "", machines(results), ""]
    missing = [
        row for row in ROWS if not row.cpu_only and find(results, row.benchmark, "cuda", row.path) is None
    ]
    if missing:
        lines += ["## Not measured on a GPU yet", "", "A GPU was there for minutes only. Missing:", ""]
        lines += [f"- {listed(name, missing)}" for name in TITLES if listed(name, missing)]
        lines.append("")
    return "\n".join(lines).rstrip()


def measured_on(results: Results) -> list[str]:
    """Return the devices that there is a figure of."""
    return [d for d in DEVICES if any(find(results, row.benchmark, d, row.path) is not None for row in ROWS)]


def cells_of(row: Row, results: Results, devices: list[str]) -> list[str]:
    """Return a row's figures on some devices."""
    found = (find(results, row.benchmark, device, row.path) for device in devices)
    return [MISSING if value is None else row.form(value) for value in found]


def listed(benchmark: str, missing: list[Row]) -> str:
    """Name the figures of a benchmark that are missing, and the command that measures them."""
    names = [
        row.what + (f" (goal: {row.goal})" if row.goal else "")
        for row in missing
        if row.benchmark == benchmark
    ]
    return f"`python benchmarks/{benchmark}.py --device cuda`: {'; '.join(names)}" if names else ""


def machines(results: Results) -> str:
    """Say where and when the figures were taken."""
    said: dict[str, list[str]] = {}
    for name in sorted({row.benchmark for row in ROWS}):
        for device in DEVICES:
            if result := results.get(f"{name}-{device}"):
                machine = result["machine"]
                chip = machine["gpu"] if device == "cuda" else f"{machine['cpu']}, {machine['cores']} cores"
                said.setdefault(f"{chip}, torch {machine['torch']}, {machine['date']}", []).append(name)
    return " ".join(f"{', '.join(names)}: {where}." for where, names in said.items())


def heads_table(results: Results, name: str) -> str:
    """Return a comparison of heads."""
    return comparison_table(results[name]) if name in results else "not measured yet"


def encoders_table(results: Results) -> str:
    """Return speed, memory and agreement of vision towers."""
    found = results.get("encoders-cpu", {}).get("towers", {})
    if not found:
        return "not measured yet"
    lines = ["| architecture | weights | images/s of a core | memory | cosine |", "|---|---|---|---|---|"]
    for name, tower in found.items():
        lines.append(
            f"| `{name}` | {tower['weights']} | {tower['images_per_s']:.3g} | {tower['memory_mib']:,} MiB | "
            f"{tower['cosine']:.5f} |"
        )
    result = results["encoders-cpu"]
    machine, load = result["machine"], result["load_average"][0]
    where = f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, {machine['date']}"
    return "\n".join([*lines, "", f"Batches of {result['batch']}, load average {load:.0f}: {where}."])


def instructions(results: Results) -> str:
    """Return success by wordings, and by what was asked."""
    found = results.get("instructions")
    return "not measured yet" if found is None else instructions_table(found)


def meta_world(results: Results, name: str) -> str:
    """Return Meta-World beside published figures."""
    found = results.get(name, {})
    return metaworld_table(found) if found.get("rows") else "not measured yet"


def lerobot_act(results: Results) -> str:
    """Return LeRobot's ACT beside ours on one task of Meta-World."""
    ours, theirs = results.get("meta-world-one-task"), results.get("lerobot-act")
    return act_table(ours, theirs) if ours and theirs else "not measured yet"


TABLES: dict[str, Callable[[Results], str]] = {
    "headline": headline,
    "speed": speed_table,
    "all speed": all_speed_tables,
    "storage": storage_table,
    "hours": hours_table,
    "cores": cores_table,
    "H100": estimate_table,
    "sizes": sizes_table,
    "growth": growth_table,
    "heads": partial(heads_table, name="heads"),
    "heads detour": partial(heads_table, name="heads-detour"),
    "encoders": encoders_table,
    "adapt": lambda results: adapt_table(results.get("adapt", {})),
    "adapt detour": lambda results: adapt_table(results.get("adapt-detour", {})),
    "lewm probe": lambda results: lewm_table(results.get("lewm_probe", {})),
    "pixels": lambda results: pixels_table(results.get("pixels-cpu", {})),
    "language model": language_model_table,
    "instructions": instructions,
    "meta world": partial(meta_world, name="meta-world"),
    "meta world one policy": partial(meta_world, name="meta-world-one-policy"),
    "lerobot act": lerobot_act,
    "smolvla": smolvla_table,
}


def filled(text: str, results: Results) -> str:
    """Return a text with its tables made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- figures {match[1]} -->\n{TABLES[match[1]](results)}\n<!-- end -->"

    return re.sub(r"<!-- figures ([\w ]+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail if a table is not up to date"
    )
    check = parser.parse_args().check
    results = load_results()
    stale = []
    for name in FILES:
        path = ROOT / name
        text = path.read_text()
        new = filled(text, results)
        if new != text:
            stale.append(name)
            if not check:
                path.write_text(new)
    if check and stale:
        sys.exit(f"{', '.join(stale)}: not what benchmarks/results says; run python benchmarks/tables.py")
    print("written:" if stale else "up to date", *stale)


if __name__ == "__main__":
    main()
