"""What do more tokens a view and augmented variants buy? One policy a cache, everything else equal.

    vla record --config examples/demo.toml
    python benchmarks/features.py

Caches that are missing are made first, below data/benchmark-features. Writes benchmarks/results/features.json
and prints the table.
"""

from compare import Variant, run_comparison

POOLS = ("pooled", "mean", "grid2", "grid4")
AUGMENTED = 2


def cache(name: str) -> str:
    return f"cache.path=data/benchmark-features/{name}"


VARIANTS = [Variant(pool, [f"encoder.pool={pool}", cache(pool)]) for pool in POOLS] + [
    Variant(f"pooled, {AUGMENTED} augmented", [f"augment.variants={AUGMENTED}", cache(f"augment{AUGMENTED}")])
]

if __name__ == "__main__":
    run_comparison(__doc__, "features", VARIANTS)
