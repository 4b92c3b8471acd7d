"""Which head? All of them on one cache, with equal steps and paired environment seeds.

    vla record --config examples/demo.toml
    python benchmarks/heads.py

Writes benchmarks/results/heads.json and prints the table; what it means is in docs/log.md.
"""

from compare import Variant, run_comparison

STEPS = (1, 2, 5, 10)
VARIANTS = [
    Variant("imf attnres", ["policy.head=imf", "policy.residual=attnres"], (1, 2, 10), STEPS),
    Variant("imf plain", ["policy.head=imf", "policy.residual=plain"], (1,), STEPS),
    Variant("flow attnres", ["policy.head=flow", "policy.residual=attnres"], (1, 2, 10), STEPS),
    Variant("ddpm attnres", ["policy.head=ddpm", "policy.residual=attnres"], (2, 10), (*STEPS, 100)),
    Variant("mlp", ["policy.head=mlp"]),
]

if __name__ == "__main__":
    run_comparison(__doc__, "heads", VARIANTS)
