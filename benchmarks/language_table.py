"""The table of docs/language.md: what it costs to train a language model as fusion."""

from collections.abc import Mapping
from typing import Any


def language_model_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures of `language_model.py`, those of a GPU where there are some."""
    result = results.get("language_model-cuda") or results.get("language_model-cpu")
    if not result:
        return "not measured yet"
    lines = [
        "| | trained weights | checkpoint | memory | of it activations | step | over frozen |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in result["variants"].items():
        cells = [
            f"{found['trained_millions']:.3g} M",
            *(f"{found[key]:,.0f} MiB" for key in ("checkpoint_mib", "memory_mib", "activations_mib")),
            f"{found['step_s']:.3g} s",
            f"{found['step_over_frozen']:.2f} x",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    machine = result["machine"]
    where = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}"
    what = (
        f"A model of {result['model_millions']:.3g} million random weights; sequences of "
        f"{result['sequence']} tokens and the instruction; batches of {result['batch_size']}. Sizes are "
        f"{result['size']}. Memory is counted tensor by tensor; a step on a CPU is processor time. "
        f"`{result['command']}`, {where}, load average {result['load_average'][0]:.0f}, {machine['date']}."
    )
    return "\n".join([*lines, "", what])
