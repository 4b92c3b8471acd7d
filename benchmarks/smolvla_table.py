"""The table of docs/smolvla.md: a training step from the cache beside LeRobot's own."""

from collections.abc import Mapping
from typing import Any


def smolvla_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table, of result files by name."""
    names = ("smolvla-cpu", "smolvla-batch-8-cpu", "smolvla-3-cameras-cpu", "smolvla-cuda")
    found = [results[name] for name in names if name in results]
    if not found:
        return "not measured yet"
    lines = [
        "| cameras | batch | LeRobot, samples/s | vla, samples/s | ratio | ratio of processor time |",
        "|---|---|---|---|---|---|",
    ]
    for result in found:
        theirs, ours = (result["samples_per_s"][name] for name in ("lerobot", "vla"))
        lines.append(
            f"| {result['cameras']} | {result['batch_size']} | {theirs:.3g} | {ours:.3g} | "
            f"**{result['factor']:.1f}** | {result['factor_cpu']:.1f} |"
        )
    machine, load = found[-1]["machine"], found[-1]["load_average"][0]
    where = f"{machine['cpu']}, one of {machine['cores']} cores, torch {machine['torch']}, {machine['date']}"
    commands = ", ".join(f"`{result['command']}`" for result in found)
    return "\n".join([*lines, "", f"Load average {load:.0f}: {where}. {commands}"])
