"""The whole pipeline on one CPU: record, embed, train, roll out, beside an untrained policy.

Run by `make demo`. Stages that an earlier run has finished are not done again.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vla.base.success import format_success

CONFIG = "examples/demo.toml"
RUN, UNTRAINED = Path("runs/demo"), Path("runs/demo-untrained")
DATASET = Path("data/demo/sim_transfer")
UNTRAINED_EPISODES = 10
"""Its reward hardly varies, and its episodes are the longest: it never gets there."""


def run(seconds: dict[str, float], name: str, *arguments: str) -> dict[str, Any]:
    """Show and run one command; return what it reports and note how long it took."""
    command = ["vla", *arguments, "--config", CONFIG]
    print("\n$", shlex.join(command), flush=True)
    began = time.monotonic()
    finished = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        sys.exit(finished.returncode)
    seconds[name] = time.monotonic() - began
    return dict(json.loads(finished.stdout))


def train(seconds: dict[str, float], name: str, out: Path, *options: str) -> None:
    """Train a run, or continue it."""
    resume = ["--resume"] if (out / "pipeline.toml").is_file() else []
    run(seconds, name, "train", "--out", str(out), *options, *resume)


def main() -> None:
    seconds: dict[str, float] = {}
    if not DATASET.is_dir():
        run(seconds, "record", "record")
    run(seconds, "embed", "embed")
    train(seconds, "train", RUN)
    # `last`: four validation episodes are too few to call a checkpoint the best.
    out = str(RUN / "eval/demo")
    trained = run(seconds, "rollout", "rollout", str(RUN), "--checkpoint", "last", "--out", out, "--force")
    train(seconds, "train, 0 steps", UNTRAINED, "--steps", "0", "--set", "train.rollout_every=0")
    out = str(UNTRAINED / "eval/demo")
    few = ["--episodes", str(UNTRAINED_EPISODES), "--out", out, "--force"]
    untrained = run(seconds, "rollout, untrained", "rollout", str(UNTRAINED), *few)

    aggregated = trained["aggregated"]
    success = format_success(aggregated["pc_success"], aggregated["pc_success_ci95"])
    episodes = aggregated["n_episodes"]
    print(f"\nsuccess        {success} over {episodes} unseen seeds; in brackets the 95 % interval")
    first = f"the first {UNTRAINED_EPISODES} of these seeds"
    print(f"avg_reward     {trained['avg_reward']:.1f}; untrained, {first}: {untrained['avg_reward']:.1f}")
    latency = [f"{part} {figures['p50']:.1f} ms" for part, figures in trained["latency_ms"].items()]
    print(f"latency        {', '.join(latency)} (medians)")
    print(f"run            {RUN}")
    print(f"videos         {trained['out']}/videos")
    print(f"plots          {RUN}/plots/training.png, {trained['out']}/plots/rewards.png")
    print("seconds        " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))


if __name__ == "__main__":
    main()
