"""What a training step of the full-size policy should take on an H100: computed from counts, not measured.

A step launches its kernels one after the other while the device works: it takes as long as the slower of the
two. What the device has to do is its products, at a share of the peak rate, and its bytes, at a share of the
bandwidth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BATCH, STEPS = 256, 50_000
# NVIDIA's data sheet of the H100 SXM, dense.
FLOAT32, TF32, BFLOAT16 = 67e12, 495e12, 989e12
BYTES_S = 3.35e12
# What is reached of it: products of width 384 are small, and so are most of the tensors.
VECTOR_SHARE, TENSOR_SHARE, BYTES_SHARE = 0.6, 0.4, 0.8
LAUNCH_S, GRAPH_LAUNCH_S = (5e-6, 8e-6), 1.5e-6
"""Of an operation that Python dispatches, and of a kernel in a graph."""
OPERATIONS = 13_031
"""Dispatched by one eager step (docs/log.md, 2026-11-25)."""
DERIVATIVE_SHARE = 1 / 3
"""Of the FLOP: du/dt, in float32 or TF32; all else is bfloat16."""
DUAL_SHARE = 338 / 449
"""Of the FLOP with torch.func.jvp, that the same takes without its products with zero."""


@dataclass(frozen=True)
class Counted:
    """What Inductor's schedule of one step holds, forward and backward, batch 256."""

    kernels: int
    gigabytes: float


ATTNRES, PLAIN = Counted(4500, 35), Counted(1500, 19)


def device_s(gflop: float, counted: Counted, derivative: float) -> float:
    """Return how long the device works on a step.

    Args:
        gflop: of the step.
        counted: its bytes.
        derivative: FLOP/s that are reached in its derivative.
    """
    products = 1e9 * gflop * DERIVATIVE_SHARE / derivative
    products += 1e9 * gflop * (1 - DERIVATIVE_SHARE) / (TENSOR_SHARE * BFLOAT16)
    return products + 1e9 * counted.gigabytes / (BYTES_SHARE * BYTES_S)


def estimate_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of docs/speed.md; FLOP are those that benchmarks/train.py has counted."""
    measured = results["train-cpu"]["step"]
    gflop = measured["gflop_a_step"] * BATCH / measured["batch_size"]
    precise, fast = VECTOR_SHARE * FLOAT32, TENSOR_SHARE * TF32
    compiled = (
        ("AttnRes, graphs", gflop, ATTNRES, precise),
        ("AttnRes, graphs, TF32", gflop, ATTNRES, fast),
        ("plain residuals, graphs, TF32", gflop, PLAIN, fast),
        ("plain residuals, graphs, TF32, dual numbers", gflop * DUAL_SHARE, PLAIN, fast),
    )
    few, many = (OPERATIONS * seconds for seconds in LAUNCH_S)
    eager = f"{1e3 * few:.0f} to {1e3 * many:.0f} | {STEPS * few / 60:.0f} to {STEPS * many / 60:.0f} min"
    lines = [
        "| full-size policy, batch 256 | GFLOP | GB moved | launches | ms a step | 50,000 steps |",
        "|---|---|---|---|---|---|",
        f"| AttnRes, eager | {gflop:,.0f} | more than 35 | {OPERATIONS:,} | {eager} |",
    ]
    for name, work, counted, rate in compiled:
        seconds = max(device_s(work, counted, rate), counted.kernels * GRAPH_LAUNCH_S)
        lines.append(
            f"| {name} | {work:,.0f} | {counted.gigabytes:g} | {counted.kernels:,} | {1e3 * seconds:.1f} "
            f"| {STEPS * seconds / 60:.0f} min |"
        )
    return "\n".join(lines)
