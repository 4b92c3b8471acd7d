"""What does it bring to adapt a trunk, freeze it and cache it, and what does it cost?

    vla record --config examples/demo.toml
    python benchmarks/adapt.py              # images of 96 x 96, a ResNet of a quarter's width
    python benchmarks/adapt.py --size 64 --width 8 --adapt-steps 300 --steps 500 --episodes 20

    vla record --config examples/detour.toml
    python benchmarks/adapt.py --config examples/detour.toml --size 64 --adapt-steps 1000 --steps 1000

end to end    trunks, fusion and head on images for --adapt-steps updates
as it came    trunks frozen as they were built, or as --weights has them, cached; a head for --steps
adapted       the trunks of `end to end`, frozen and cached; a head trained anew for --steps
longer        one more head on that cache, which is given --history instants instead of the configuration's

Each with the ResNet's own blocks, with those of Attention Residuals, and (--blocks tower) with the small
vision transformer that comes with vla, on the same demonstrations and paired environment seeds. Seconds
are of each step of `vla adapt`, one after the other on this machine. Writes benchmarks/results/adapt.json,
or adapt-detour.json, after every evaluation; started again, it goes on.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from machine import machine

from vla import stages
from vla.base.files import write_json
from vla.base.success import format_success
from vla.config import PipelineConfig, read_tables
from vla.policy.training.run import RunDirectory
from vla.saved import run_tables, saved_tables
from vla.stages.adapting import adapt

DEMO = Path("examples/demo.toml")
TOWER, TOWER_SIZE = {"id": "siglip2-tiny-sim", "pool": "grid4"}, 256
"""A vision transformer that knows another task of this simulation."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=DEMO)
    parser.add_argument("--size", type=int, default=96, help="of images [pixel]")
    parser.add_argument("--width", type=int, default=16, help="channels of the trunk's first stage")
    parser.add_argument("--blocks", nargs="+", default=["basic", "attnres"])
    parser.add_argument(
        "--weights", default="", help="file to start basic blocks from; empty is from scratch"
    )
    parser.add_argument("--adapt-steps", type=int, default=2500, help="updates on images")
    parser.add_argument("--steps", type=int, default=2500, help="updates of a head on features")
    parser.add_argument("--history", type=int, nargs="*", default=[], help="instants of one more head")
    parser.add_argument("--episodes", type=int, default=50, help="an evaluation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--work", type=Path, help="folder of runs; runs/benchmark-adapt or so")
    parser.add_argument("--out", type=Path, help="benchmarks/results/adapt.json or so")
    arguments = parser.parse_args()
    task = "adapt" if arguments.config == DEMO else f"adapt-{arguments.config.stem}"
    arguments.work = arguments.work or Path(f"runs/benchmark-{task}")
    arguments.out = arguments.out or Path(f"benchmarks/results/{task}.json")
    for seed in arguments.seeds:
        for blocks in arguments.blocks:
            compare(arguments, blocks, seed)
    for row in saved(arguments.out)["rows"]:
        shown = format_success(row["pc_success"], row["ci95"])
        print(f"{row['variant']:<11} {row['blocks']:<8} seed {row['seed']}  {shown}  {row['seconds']}")


def compare(arguments: argparse.Namespace, blocks: str, seed: int) -> None:
    """Train and evaluate all three with one kind of blocks and one seed."""
    untrained = arguments.work / f"{blocks}-came-seed{seed}"
    frozen = adapt(settings_for(arguments, blocks, seed, 0, untrained))
    evaluate(arguments, "as it came", blocks, seed, untrained, head_seconds(frozen))
    trained = arguments.work / f"{blocks}-adapted-seed{seed}"
    made = adapt(settings_for(arguments, blocks, seed, arguments.adapt_steps, trained))
    on_images = {name: made["seconds"][name] for name in ("embed_pixels", "train_on_pixels")}
    evaluate(arguments, "end to end", blocks, seed, Path(made["adapted"]), on_images)
    evaluate(arguments, "adapted", blocks, seed, trained, made["seconds"])
    for instants in arguments.history:
        run = trained.with_name(f"{trained.name}-history{instants}")
        changes = [f"policy.obs_horizon={instants}", f"cache.path={made['features']}", f"train.out={run}"]
        settings = PipelineConfig.load(None, {}, arguments.set + changes, base=run_tables(trained))
        began = time.monotonic()
        stages.train(settings, resume=RunDirectory(run).config.is_file())
        seconds = {"train_on_features": round(time.monotonic() - began, 1)}
        evaluate(arguments, f"adapted, {instants} instants", blocks, seed, run, seconds)


def head_seconds(made: dict[str, Any]) -> dict[str, float]:
    """Return what a head on frozen features takes: nothing is trained on images."""
    return {name: made["seconds"][name] for name in ("embed_features", "train_on_features")}


def settings_for(
    arguments: argparse.Namespace, blocks: str, seed: int, adapt_steps: int, out: Path
) -> PipelineConfig:
    """Return the configuration of one `vla adapt`."""
    cameras = read_tables(arguments.config).get("dataset", {}).get("cameras", ["r_vis", "top", "front"])
    trunk: dict[str, Any] = {"type": "resnet", "blocks": blocks, "width": arguments.width}
    if blocks == "tower":
        trunk = {"type": "tower", **TOWER}
    elif arguments.weights and blocks == "basic":
        trunk["weights"] = arguments.weights
    size = image_size(arguments, blocks)
    options = {
        "encoder": {"type": "pixels", "id": "pixels", "image_size": [size, size]},
        "policy.trunks": dict.fromkeys(cameras, trunk),
        "policy.per_view_dim": 64,
        "train.adapt_steps": adapt_steps,
        "train.steps": arguments.steps,
        "train.seed": seed,
        "train.rollout_every": 0,
        "train.augment.shift": 0.05,
        "train.out": str(out),
    }
    return PipelineConfig.load(arguments.config, options, arguments.set)


def evaluate(
    arguments: argparse.Namespace,
    variant: str,
    blocks: str,
    seed: int,
    run: Path,
    seconds: dict[str, float],
) -> None:
    """Drive a run's last checkpoint live, unless that has been done, and add a row to the results."""
    key = {"variant": variant, "blocks": blocks, "seed": seed}
    rows = saved(arguments.out)["rows"]
    if any(key.items() <= row.items() for row in rows):
        return
    options = {"rollout.episodes": arguments.episodes, "rollout.videos": 0}
    settings = PipelineConfig.load(None, options, arguments.set, base=saved_tables(run))
    began = time.monotonic()
    info = stages.rollout(settings, run, checkpoint="last", out=run / "eval/benchmark", force=True)
    row = {
        **key,
        "image_size": image_size(arguments, blocks),
        "adapt_steps": arguments.adapt_steps,
        "steps": arguments.steps,
        "pc_success": info["aggregated"]["pc_success"],
        "ci95": info["aggregated"]["pc_success_ci95"],
        "episodes": arguments.episodes,
        "avg_reward": round(info["avg_reward"], 2),
        "latency_ms": {part: values["p50"] for part, values in info["latency_ms"].items()},
        "seconds": {**seconds, "rollout": round(time.monotonic() - began, 1)},
    }
    write_json(arguments.out, {"machine": machine(), "rows": [*rows, row]})


def image_size(arguments: argparse.Namespace, blocks: str) -> int:
    """Return the edge of the images that a kind of blocks is given [pixel]."""
    return TOWER_SIZE if blocks == "tower" else int(arguments.size)


def saved(path: Path) -> dict[str, Any]:
    """Return what was measured so far."""
    return json.loads(path.read_text()) if path.is_file() else {"rows": []}


if __name__ == "__main__":
    main()
