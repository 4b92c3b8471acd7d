"""What a training step of the full-size policy should take on an H100: computed from counts, not measured.

A step launches its kernels one after the other while the device works: it takes as long as the slower of the
two. What the device has to do is its products, at a share of the peak rate, and its bytes, at a share of the
bandwidth.
"""

from collections.abc import Mapping
from typing import Any

BATCH, STEPS = 256, 50_000
# NVIDIA's data sheet of the H100 SXM, dense.
FLOAT32, TF32, BFLOAT16 = 67e12, 495e12, 989e12
BYTES_S = 3.35e12
# What is reached of it: products of width 384 are small, and so are most of the tensors.
VECTOR_SHARE, TENSOR_SHARE, BYTES_SHARE = 0.6, 0.4, 0.8
LAUNCH_S, GRAPH_LAUNCH_S = (5e-6, 8e-6), 1.5e-6
"""Of an operation that Python dispatches, and of a kernel in a graph."""
GFLOP = {"attnres": 125.32 / 32, "plain": 123.94 / 32}
"""Of a window, the whole step, counted by torch's FlopCounterMode (docs/log.md, 2026-11-26)."""
OPERATIONS = {"attnres": 13_791, "plain": 4_329}
"""Dispatched by one eager step, views left out (docs/log.md, 2026-11-26)."""
DERIVATIVE_SHARE = 1 / 3
"""Of the FLOP: du/dt, in float32 or TF32; all else is bfloat16."""


def device_s(gflop: float, gigabytes: float, derivative: float) -> float:
    """Return how long the device works on a step.

    Args:
        gflop: of the step.
        gigabytes: that its kernels read and write.
        derivative: FLOP/s that are reached in its derivative.
    """
    products = 1e9 * gflop * DERIVATIVE_SHARE / derivative
    products += 1e9 * gflop * (1 - DERIVATIVE_SHARE) / (TENSOR_SHARE * BFLOAT16)
    return products + 1e9 * gigabytes / (BYTES_SHARE * BYTES_S)


def estimate_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of docs/speed.md.

    Kernels and bytes are counted by benchmarks/residual_cost.py.
    """
    if "residual_cost" not in results:
        return "not measured yet"
    counted = results["residual_cost"]
    lines = [
        "| full-size policy, batch 256 | GFLOP | GB moved | launches | ms a step | 50,000 steps |",
        "|---|---|---|---|---|---|",
    ]
    for residual, count in OPERATIONS.items():
        few, many = (count * seconds for seconds in LAUNCH_S)
        eager = f"{1e3 * few:.0f} to {1e3 * many:.0f} | {STEPS * few / 60:.0f} to {STEPS * many / 60:.0f} min"
        gflop = BATCH * GFLOP[residual]
        more = f"more than {counted[residual]['gigabytes']:.0f}"
        lines.append(f"| {residual}, eager | {gflop:,.0f} | {more} | {count:,} | {eager} |")
    for variant in (name for name in counted if name.partition(" ")[0] in OPERATIONS):
        gflop = BATCH * GFLOP[variant.partition(" ")[0]]
        kernels, gigabytes = counted[variant]["kernels"], counted[variant]["gigabytes"]
        for arithmetic, rate in (("", VECTOR_SHARE * FLOAT32), (", TF32", TENSOR_SHARE * TF32)):
            seconds = max(device_s(gflop, gigabytes, rate), kernels * GRAPH_LAUNCH_S)
            lines.append(
                f"| {variant}, graphs{arithmetic} | {gflop:,.0f} | {gigabytes:.0f} | {kernels:,} "
                f"| {1e3 * seconds:.1f} | {STEPS * seconds / 60:.0f} min |"
            )
    return "\n".join(lines)
