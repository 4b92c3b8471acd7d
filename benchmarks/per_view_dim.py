"""The user's comparison: views projected to 96 or to 192 numbers, everything else equal.

    python benchmarks/per_view_dim.py --seeds 3

Writes benchmarks/results/per_view_dim.json and prints the table.
"""

import argparse
from pathlib import Path

from compare import Comparison, Variant

VARIANTS = [Variant(f"per_view_dim {dim}", [f"policy.per_view_dim={dim}"]) for dim in (96, 192)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("examples/demo.toml"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-per-view-dim"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/per_view_dim.json"))
    arguments = parser.parse_args()
    comparison = Comparison(arguments.config, arguments.work, arguments.out, arguments.set)
    comparison.run(VARIANTS, range(arguments.seeds), arguments.episodes)
    print(comparison.table())


if __name__ == "__main__":
    main()
