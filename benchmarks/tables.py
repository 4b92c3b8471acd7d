"""Put the measured figures into README.md and docs/scale.md. No figure in them is typed by hand.

    python benchmarks/tables.py            # after a benchmark has written its results
    python benchmarks/tables.py --check    # complain if a table is not what the results say

A table stands between <!-- figures NAME --> and <!-- end -->; a file without the marks is left alone.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
FILES = ("README.md", "docs/scale.md")
DEVICES = ("cpu", "cuda")
MISSING = "?"
Results = Mapping[str, Mapping[str, Any]]
"""Result files by name, such as embed-cpu."""


@dataclass(frozen=True)
class Row:
    """One figure and what it should be."""

    what: str
    goal: str
    benchmark: str
    path: str
    """Keys in the result, joined by slashes."""
    form: Callable[[float], str] = "{:.2f}".format
    gpu_only: bool = False


def percent(value: float) -> str:
    return f"{100 * value:.2g} %"


def times(value: float) -> str:
    return f"{value:.3g} x"


def milliseconds(value: float) -> str:
    return f"{value:.3g} ms"


def minutes(value: float) -> str:
    return f"{value:.3g} min"


BASE, SMALL, HEAD = "siglip2-base", "siglip2-tiny-sim", "1 robot/head, eager"
ROWS = (
    Row("embed in memory, over a bare loop `model(x)`", "0.95", "embed", f"{BASE}/engine/engine_over_bare"),
    Row("the same, the small encoder", "0.95", "embed", f"{SMALL}/engine/engine_over_bare"),
    Row("embed PNG, over the slower of both parts", "0.90", "embed", f"{BASE}/from_images/over_slower"),
    Row("embed mp4, over the slower of both parts", "0.90", "embed", f"{BASE}/from_mp4/over_slower"),
    Row("PNG, the small encoder on the decoder's cores", "0.90", "embed", f"{SMALL}/from_images/over_slower"),
    Row("mp4, the same", "0.90", "embed", f"{SMALL}/from_mp4/over_slower"),
    Row("memory with 4 x the frames", "1 x", "embed", "scaling/largest_over_smallest_memory", times),
    Row("time of a further frame, late over early", "1 x", "embed", "scaling/late_over_early", times),
    Row("embed, images/s", "", "embed", f"{BASE}/engine/images_per_s", "{:,.4g}".format),
    Row(
        "share of the matrix product's rate", "", "embed", f"{BASE}/compute/share_of_matrix_product", percent
    ),
    Row("training step, over one on a fixed batch", "at most 1.05", "train", "step/over_fixed_batch"),
    Row("data loading in a training step", "at most 2 %", "train", "step/dataloading_share", percent),
    Row("training from the cache, over from images", "", "train", "from_images/factor", times),
    Row("training from disk, over from memory", "", "train", "from_disk/share_of_in_memory_rate"),
    Row("50,000 steps of 256", "", "train", "compiled/eager/minutes_for_50000_steps", minutes, True),
    Row(
        "50,000 steps of 256, CUDA graphs",
        "10 min",
        "train",
        "compiled/graphs/minutes_for_50000_steps",
        minutes,
        True,
    ),
    Row(
        "50,000 steps of 256, CUDA graphs and TF32",
        "10 min",
        "train",
        "compiled/graphs, tf32/minutes_for_50000_steps",
        minutes,
        True,
    ),
    Row("1 robot: encode 3 views", "", "latency", f"1 robot/{BASE}, eager/encode_ms", milliseconds),
    Row("the same, CUDA graphs", "", "latency", f"1 robot/{BASE}, graphs/encode_ms", milliseconds, True),
    Row("1 robot: one-step head", "", "latency", f"{HEAD}/imf, 1 step, ms", milliseconds),
    Row(
        "one-step head, CUDA graphs",
        "2 ms",
        "latency",
        "1 robot/head, graphs/imf, 1 step, ms",
        milliseconds,
        True,
    ),
    Row(
        "10 steps of DDIM over one", "", "latency", "1 robot/head, eager/ddim, 10 steps, times as long", times
    ),
    Row(
        "100 steps of DDIM over one",
        "",
        "latency",
        "1 robot/head, eager/ddim, 100 steps, times as long",
        times,
    ),
    Row("rollouts in parallel, over one through Gymnasium", "1.7 x", "rollout", "parallel_over_plain", times),
    Row("over one that renders only what is seen", "1.7 x", "rollout", "parallel_over_serial", times),
    Row("over cores that never wait", "", "rollout", "parallel_over_ideal", times),
)


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


def speed_table(results: Results) -> str:
    """Return the table of the README: what has been measured, and below it what has not."""
    values = {row: {d: find(results, row.benchmark, d, row.path) for d in DEVICES} for row in ROWS}
    shown = [device for device in DEVICES if any(found[device] is not None for found in values.values())]
    names = {"cpu": "CPU, reduced size", "cuda": "GPU"}
    lines = [
        f"| SigLIP2-base if not said otherwise | goal | {' | '.join(names[device] for device in shown)} |",
        "|---|---|" + "---|" * len(shown),
    ]
    for row, found in values.items():
        cells = [row.form(v) if (v := found[device]) is not None else MISSING for device in shown]
        if cells.count(MISSING) < len(cells):
            lines.append(f"| {row.what} | {row.goal} | {' | '.join(cells)} |")
    lines += ["", machines(results)]
    missing = [row for row, found in values.items() if found["cuda"] is None]
    if missing:
        commands = ", ".join(
            f"`python benchmarks/{name}.py --device cuda`"
            for name in sorted({row.benchmark for row in missing})
        )
        lines += [
            "",
            f"Not measured on a GPU yet, for want of one: {listed(missing)}. To measure: {commands}.",
        ]
    return "\n".join(lines)


def listed(missing: list[Row]) -> str:
    """Name the figures that are missing."""
    if len(missing) == len(ROWS):
        wanted = [f"{row.what} ({row.goal})" for row in ROWS if row.goal and row.gpu_only]
        return f"everything above, and {', '.join(wanted)}"
    return ", ".join(row.what for row in missing)


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
    lines = ["| images/s | " + " | ".join(OTHER_RATES) + " |", "|---|" + "---|" * len(OTHER_RATES)]
    for kind, path in (("PNG", "from_images"), ("mp4", "from_mp4")):
        rate = find(results, "embed", "cpu", f"{SMALL}/{path}/decode_images_per_s")
        if rate is None:
            return "not measured yet"
        each = rate / results["embed-cpu"]["machine"]["cores"]
        cells = " | ".join(f"{wanted / each:.0f} cores" for wanted in OTHER_RATES.values())
        lines.append(f"| {kind}, {each:,.4g} a core | {cells} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[Results], str]] = {
    "speed": speed_table,
    "storage": storage_table,
    "hours": hours_table,
    "cores": cores_table,
}


def _bytes(size: float) -> str:
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e6:.3g} MB"


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.2g} min"
    return f"{hours:,.3g} h" if hours < 999.5 else f"{hours / 24:,.0f} days"


def filled(text: str, results: Results) -> str:
    """Return a text with its tables made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- figures {match[1]} -->\n{TABLES[match[1]](results)}\n<!-- end -->"

    return re.sub(r"<!-- figures (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


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
