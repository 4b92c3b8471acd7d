"""The tables of docs/adapt.md, from result files: adapting, reading encoders off, images from the cache."""

from collections.abc import Mapping, Sequence
from typing import Any

from vla.base.success import format_success, wilson_interval

NOT_YET = "not measured yet"
VARIANTS = ("as it came", "end to end", "adapted")


def adapt_table(saved: Mapping[str, Any]) -> str:
    """Return a row a kind of blocks and variant, training seeds pooled.

    Args:
        saved: what `adapt.py` writes.
    """
    if not saved.get("rows"):
        return NOT_YET
    titles = [
        "trunk",
        "variant",
        "success (95 % interval)",
        "by training seed",
        "updates on images, of the head",
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    kinds = dict.fromkeys(row["blocks"] for row in saved["rows"])
    others = dict.fromkeys(row["variant"] for row in saved["rows"] if row["variant"] not in VARIANTS)
    for blocks in kinds:
        for variant in (*VARIANTS, *others):
            rows = [row for row in saved["rows"] if (row["blocks"], row["variant"]) == (blocks, variant)]
            if rows:
                lines.append(_row(blocks, variant, rows))
    machine, seeds = saved["machine"], {row["seed"] for row in saved["rows"]}
    told = (
        f"The last checkpoint, training seeds: {len(seeds)}, {saved['rows'][0]['episodes']} episodes each; "
        f"{machine['cpu']}, {machine['date']}."
    )
    return "\n".join([*lines, "", told])


def _row(blocks: str, variant: str, rows: Sequence[Mapping[str, Any]]) -> str:
    episodes = sum(row["episodes"] for row in rows)
    successes = sum(round(row["pc_success"] * row["episodes"] / 100) for row in rows)
    interval = [100 * bound for bound in wilson_interval(successes, episodes)]
    seeds = ", ".join(f"{row['pc_success']:.0f}" for row in sorted(rows, key=lambda row: int(row["seed"])))
    success = format_success(100 * successes / episodes, interval)
    on_images = 0 if variant == "as it came" else rows[0]["adapt_steps"]
    of_head = 0 if variant == "end to end" else rows[0]["steps"]
    trunk = f"{blocks}, {rows[0]['image_size']} pixels"
    cells = [trunk, variant, success, seeds, f"{on_images:,}, {of_head:,}"]
    return f"| {' | '.join(cells)} |"


def lewm_table(saved: Mapping[str, Any]) -> str:
    """Return what can be read off encoders by a linear map; `saved` is what `lewm_probe.py` writes."""
    if not saved:
        return NOT_YET
    columns = list(next(iter(saved["error_mm"].values())))
    lines = [f"| features | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, errors in saved["error_mm"].items():
        lines.append(f"| {name} | {' | '.join(f'{errors[column]:.0f} mm' for column in columns)} |")
    scenes = saved["scenes"]
    return "\n".join([*lines, "", f"Fitted to {scenes['train']:,} scenes, {scenes['test']:,} held out."])


def pixels_table(saved: Mapping[str, Any]) -> str:
    """Return samples a second from the cache and from video; `saved` is what `pixels.py` writes."""
    if not saved:
        return NOT_YET
    rates = {place: saved[f"samples_per_s_from_{place}"] for place in ("cache", "jpeg", "video")}
    lines = [
        "| images come from | samples/s | on disk |",
        "|---|---|---|",
        f"| the cache | {rates['cache']:.3g} | {saved['cache_mib']:.3g} MiB |",
        f"| the cache, JPEG files of quality 95 | {rates['jpeg']:.3g} | {saved['jpeg_mib']:.3g} MiB |",
        f"| video, decoded in the loop | {rates['video']:.3g} | |",
        "",
        f"The cache is **{saved['from_cache_over_from_video']:.3g} times** as fast as video. JPEG files "
        f"make a step {saved['jpeg_step_over_plain']:.3g} times as long, and their images are off by "
        f"{saved['jpeg_error']:.2g} of 255 levels (root mean square); shifts and colours make it "
        f"{saved['augmented_step_over_plain']:.3g} times as long. {saved['size'].capitalize()}; "
        f"{saved['frames']:,} frames; {saved['machine']['cores']} cores of {saved['machine']['cpu']}, "
        f"{saved['machine']['date']}.",
    ]
    return "\n".join(lines)
