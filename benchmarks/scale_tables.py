"""The tables of docs/scale.md, from result files: storage, hours, cores, large caches and growing ones."""

from collections.abc import Callable, Mapping
from typing import Any

from speed_figures import BASE, SMALL

DEVICES = ("cpu", "cuda")
Results = Mapping[str, Mapping[str, Any]]
"""Result files by name, such as embed-cpu."""

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


def find(results: Results, benchmark: str, device: str, path: str) -> float | None:
    """Return a figure, or None if it has not been measured."""
    value: Any = results.get(f"{benchmark}-{device}")
    for key in path.split("/"):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return float(value)


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
