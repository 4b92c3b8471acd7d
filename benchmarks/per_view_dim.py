"""How wide need a view be? Projected to 96 or to 192 numbers, everything else equal.

    vla record --config examples/demo.toml
    python benchmarks/per_view_dim.py

Writes benchmarks/results/per_view_dim.json and prints the table.
"""

from compare import Variant, run_comparison

VARIANTS = [Variant(f"per_view_dim {dim}", [f"policy.per_view_dim={dim}"]) for dim in (96, 192)]

if __name__ == "__main__":
    run_comparison(__doc__, "per_view_dim", VARIANTS)
