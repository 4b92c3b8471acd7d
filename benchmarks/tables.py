"""Put the measured figures into README.md and pages of docs. No figure in them is typed by hand.

    python benchmarks/tables.py            # after a benchmark has written its results
    python benchmarks/tables.py --check    # complain if a table is not what the results say

A table stands between <!-- figures NAME --> and <!-- end -->; a file without the marks is left alone.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from adapt_table import adapt_table, lewm_table, pixels_table
from comparison_table import comparison_table
from h100_estimate import estimate_table
from instructions_table import instructions_table
from language_table import language_model_table
from meta_world_table import metaworld_table
from smolvla_table import smolvla_table
from speed_figures import BASE, ROWS, SMALL, TITLES, Row

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
FILES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
DEVICES = ("cpu", "cuda")
DEVICE_NAMES = {"cpu": "CPU, reduced size", "cuda": "GPU"}
MISSING = "?"
Results = Mapping[str, Mapping[str, Any]]
"""Result files by name, such as embed-cpu."""


def load_results(folder: Path = RESULTS) -> Results:
    """Read all result files."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def find(results: Results, benchmark: str, device: str, path: str) -> float | None:
    """Return a figure, or None if it has not been measured."""
    value: Any = results.get(f"{benchmark}-{device}")
    for key in path.split("/"):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return float(value)


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


# What one frame of the full-size setting takes: three views of 768 float16 numbers, state and action of 16.
CAMERAS, DIM, VECTORS, INDICES = 3, 768, 2 * 16 * 4, 2 * 4
FRAME_COUNTS = (10_000_000, 1_000_000_000)
# Published by timm for this architecture, and the aim of this project; not measured here.
OTHER_RATES = {
    "RTX 4090, as timm publishes": 2574,
    "RTX PRO 6000, as timm publishes": 3895,
    "H200, the aim": 10_000,
}


def frame_bytes(tokens: int) -> int:
    """Return bytes of a frame in the cache."""
    return CAMERAS * tokens * DIM * 2 + VECTORS + INDICES


def storage_table(results: Results) -> str:
    """Return what the caches take on disk."""
    lines = [
        "| features of a view | bytes a frame | 10 million frames | 1 billion frames |",
        "|---|---|---|---|",
    ]
    for name, tokens in (("pooled", 1), ("grid4", 16), ("patches", 256)):
        size = frame_bytes(tokens)
        cells = " | ".join(f"{_bytes(size * count)}" for count in FRAME_COUNTS)
        lines.append(f"| {name} | {size:,} | {cells} |")
    return "\n".join(lines)


def hours_table(results: Results) -> str:
    """Return device hours of encoding."""
    rates: dict[str, float] = {}
    for device in DEVICES:
        rate = find(results, "embed", device, f"{BASE}/engine/images_per_s")
        if rate is not None:
            machine = results[f"embed-{device}"]["machine"]
            chip = machine["gpu"] if device == "cuda" else f"{machine['cores']} cores of {machine['cpu']}"
            rates[f"{chip}, measured"] = rate
    lines = [
        "| device | images/s | 10 million frames | 1 billion frames | the latter on 64 devices |",
        "|---|---|---|---|---|",
    ]
    for name, rate in {**rates, **OTHER_RATES}.items():
        few, many = (count * CAMERAS / rate / 3600 for count in FRAME_COUNTS)
        lines.append(f"| {name} | {rate:,.0f} | {_hours(few)} | {_hours(many)} | {_hours(many / 64)} |")
    return "\n".join(lines)


def cores_table(results: Results) -> str:
    """Return how many cores keep one device in images."""
    lines = ["| cores needed | " + " | ".join(OTHER_RATES) + " |", "|---|" + "---|" * len(OTHER_RATES)]
    for kind, path in (("PNG", "from_images"), ("mp4", "from_mp4")):
        rate = find(results, "embed", "cpu", f"{SMALL}/{path}/decode_images_per_s")
        if rate is None:
            return "not measured yet"
        each = rate / results["embed-cpu"]["machine"]["cores"]
        cells = " | ".join(_cores(wanted / each) for wanted in OTHER_RATES.values())
        lines.append(f"| {kind}, {each:,.4g} images/s per core | {cells} |")
    return "\n".join(lines)


def sizes_table(results: Results) -> str:
    """Return what caches of some sizes cost to open and to train on."""
    measured = results.get("scale-cpu", {})
    sizes = sorted(int(key) for key in measured if key.isdigit())
    if not sizes:
        return "not measured yet"
    found = [measured[str(size)] for size in sizes]

    def row(what: str, cell: Callable[[Mapping[str, Any]], str]) -> str:
        return f"| {what} | {' | '.join(map(cell, found))} |"

    def training(job: str) -> list[str]:
        return [
            row("until the first step is done", lambda size: f"{size[job]['until_the_first_step_s']:.3g} s"),
            row("memory of its own, at most", lambda size: f"{size[job]['memory_mib']:,.0f} MiB"),
            row("mapped pages, at most", lambda size: f"{size[job]['mapped_mib']:,.0f} MiB"),
            row("cutting a batch of 256", lambda size: f"{size[job]['batch_ms']:.2g} ms"),
        ]

    return "\n".join(
        [
            "| frames | " + " | ".join(f"{size:,}" for size in sizes) + " |",
            "|---|" + "---|" * len(sizes),
            row("episodes, shards", lambda size: f"{size['episodes']:,}, {size['shards']:,}"),
            row("shards on disk", lambda size: f"{size['shards_mib']:,.0f} MiB"),
            row("`cache.json`", lambda size: f"{size['cache_json_kib']:.3g} KiB"),
            row("table of episodes", lambda size: f"{size['table_mib']:.2g} MiB"),
            row("**open**", lambda size: f"{size['open']['open_s']:.2g} s"),
            row("memory of its own", lambda size: f"{size['open']['memory_mib']:.2g} MiB"),
            row("256 frames from all over", lambda size: f"{size['open']['first_256_frames_s']:.2g} s"),
            row("**train, cache in memory**", lambda _: ""),
            *training("train_in_memory"),
            row("**train, cache on disk**", lambda _: ""),
            *training("train_from_disk"),
        ]
    )


def growth_table(results: Results) -> str:
    """Return what each change of a dataset costs."""
    measured = results.get("growth-cpu", {})
    if not measured:
        return "not measured yet"
    lines = ["| what was done to the dataset | images encoded | seconds |", "|---|---|---|"]
    for what, found in measured["growing"].items():
        if isinstance(found, dict) and "images_encoded" in found:
            lines.append(f"| {what} | {found['images_encoded']:,} | {found['seconds']:,.3g} |")
    count = measured["many"]["episodes"]
    for what, found in measured["many"].items():
        if isinstance(found, dict):
            lines.append(
                f"| {count:,} tiny episodes, {what} | {found['images_encoded']:,} | {found['seconds']:,.3g} |"
            )
    return "\n".join(lines)


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


def meta_world(results: Results) -> str:
    """Return Meta-World beside published figures."""
    found = results.get("meta-world", {})
    return metaworld_table(found) if found.get("rows") else "not measured yet"


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
    "meta world": meta_world,
    "smolvla": smolvla_table,
}


def _bytes(size: float) -> str:
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e6:.3g} MB"


def _cores(cores: float) -> str:
    return f"{cores:.1f}" if cores < 2 else f"{cores:.0f}"


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.2g} min"
    return f"{hours:,.3g} h" if hours < 999.5 else f"{hours / 24:,.0f} days"


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
