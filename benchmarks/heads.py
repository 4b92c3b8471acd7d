"""Which head? All of them on one cache, with equal updates and paired environment seeds.

    vla record --config examples/demo.toml
    python benchmarks/heads.py

    vla record --config examples/detour.toml
    python benchmarks/heads.py --config examples/detour.toml

The first task has almost one right way; `detour` has two, and its table says how often each was gone. Writes
benchmarks/results/heads.json or heads-detour.json and prints the table; what it means is in docs/heads.md.
"""

from compare import Variant, run_comparison

STEPS = (1, 2, 5, 10)
VARIANTS = [
    Variant("imf attnres", ["policy.head=imf", "policy.residual=attnres"], (1, 2), STEPS),
    Variant("imf plain", ["policy.head=imf", "policy.residual=plain"], (1, 2), STEPS),
    Variant("imf attnres, 12 layers", ["policy.head=imf", "policy.residual=attnres", "policy.n_layer=12"]),
    Variant("imf plain, 12 layers", ["policy.head=imf", "policy.residual=plain", "policy.n_layer=12"]),
    Variant("flow", ["policy.head=flow"], (1, 2, 10), STEPS),
    Variant("ddpm", ["policy.head=ddpm"], (2, 10), (*STEPS, 100)),
    Variant("gaussian", ["policy.head=gaussian"]),
    Variant("autoregressive", ["policy.head=autoregressive"]),
    Variant("fast", ["policy.head=fast"]),
    Variant("mlp", ["policy.head=mlp"]),
]

if __name__ == "__main__":
    run_comparison(__doc__, "heads", VARIANTS)
