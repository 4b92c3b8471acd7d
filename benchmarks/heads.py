"""Which head? All of them on one cache, with equal steps and paired environment seeds.

    vla record --config examples/demo.toml && vla embed --config examples/demo.toml
    python benchmarks/heads.py --seeds 3

Writes benchmarks/results/heads.json and prints the table; what it means is in docs/log.md.
"""

import argparse
from pathlib import Path

from compare import Comparison, Variant

VARIANTS = [
    Variant("imf attnres", ["policy.head=imf", "policy.residual=attnres"], (1, 2, 5, 10)),
    Variant("imf plain", ["policy.head=imf", "policy.residual=plain"], (1, 2)),
    Variant("flow attnres", ["policy.head=flow", "policy.residual=attnres"], (1, 2, 5, 10)),
    Variant("flow plain", ["policy.head=flow", "policy.residual=plain"], (10,)),
    Variant("ddpm attnres", ["policy.head=ddpm", "policy.residual=attnres"], (2, 5, 10, 100)),
    Variant("mlp", ["policy.head=mlp"], (1,)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("examples/demo.toml"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-heads"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/heads.json"))
    arguments = parser.parse_args()
    variants = [v for v in VARIANTS if not arguments.only or v.name in arguments.only]
    comparison = Comparison(arguments.config, arguments.work, arguments.out, arguments.set)
    comparison.run(variants, range(arguments.seeds), arguments.episodes)
    print(comparison.table())


if __name__ == "__main__":
    main()
