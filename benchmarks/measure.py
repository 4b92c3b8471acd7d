"""Time things side by side, and write what was found to benchmarks/results/.

A ratio compares two figures of one run: the variants take turns, so that other work on the machine, heat and
clock speed meet all of them alike, and medians are taken over the turns.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from machine import machine

from vla.base.files import write_json

RESULTS = Path(__file__).parent / "results"
Name = TypeVar("Name")


def parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return the options that all speed benchmarks share.

    Args:
        description: the benchmark's docstring.
        name: of the result file.
    """
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cpu runs at reduced size")
    options.add_argument("--tiny", action="store_true", help="see that it runs; the figures mean nothing")
    options.add_argument("--out", type=Path, help=f"default: benchmarks/results/{name}-DEVICE.json")
    return options


def take_turns(variants: Mapping[Name, Callable[[], float | None]], rounds: int) -> dict[Name, list[float]]:
    """Run all variants once to warm up, then once a round, and return their seconds.

    Args:
        variants: by name; one that returns a number has taken the time itself [s].
        rounds: that count.
    """
    for run in variants.values():
        run()
    seconds: dict[Name, list[float]] = {name: [] for name in variants}
    for turn in range(rounds):
        # Forth and back, so that nobody always comes after the same neighbour.
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            began = time.perf_counter()
            own = variants[name]()
            seconds[name].append(time.perf_counter() - began if own is None else own)
    return seconds


def paired_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median of the ratios of each round."""
    return median(a / b for a, b in zip(numerator, denominator, strict=True))


def synchronise(device: torch.device) -> None:
    """Wait for a GPU to finish; others have."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return TFLOP/s of a large matrix product, the median of several."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        torch.mm(a, b)
        synchronise(device)

    return 2 * size**3 / median(take_turns({"mm": multiply}, 10)["mm"]) / 1e12


def save(
    arguments: argparse.Namespace, name: str, figures: Mapping[str, Any], reduced: str, *, whole: bool = True
) -> None:
    """Write a benchmark's result, and print it at the end.

    Args:
        arguments: from `parser`.
        name: of the result file.
        figures: what was found.
        reduced: how the CPU's sizes differ from the full ones.
        whole: nothing more is going to be measured; before, it is kept in case the benchmark is cut short.
    """
    result: dict[str, Any] = {
        "benchmark": name,
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "machine": machine(),
        # Over 15 minutes, this benchmark's own among them: other work shows.
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "size": "full" if arguments.device == "cuda" else f"reduced: {reduced}",
        **({} if whole else {"unfinished": "cut short; what is missing was not measured"}),
        **figures,
    }
    final: Path = arguments.out or RESULTS / f"{name}-{arguments.device}.json"
    out = final if whole else final.with_suffix(".part")
    if not arguments.tiny or arguments.out is not None:
        write_json(out, result)
    if whole:
        final.with_suffix(".part").unlink(missing_ok=True)
        print("tiny sizes, so nothing is written" if arguments.tiny else f"written to {out}")
        show(result)


def show(value: Any, indent: int = 0) -> None:
    """Print nested figures, aligned."""
    for key, entry in value.items():
        if isinstance(entry, dict):
            print(f"{' ' * indent}{key}")
            show(entry, indent + 2)
        else:
            print(f"{' ' * indent}{key:<{44 - indent}} {entry}")


def rounded(value: float, digits: int = 4) -> float:
    """Keep so many significant digits: the others are noise."""
    return float(f"{value:.{digits}g}")
