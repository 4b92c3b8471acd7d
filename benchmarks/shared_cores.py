"""What do commands lose beside another process on the same cores, by how long OpenMP's threads stay awake?

    python benchmarks/shared_cores.py            # a quarter of an hour on two cores
    python benchmarks/shared_cores.py --rounds 1

train, embed, rollout   seconds of an update, a frame, an episode, as the commands themselves say
sweep                   seconds of an update of two runs side by side
alone, shared           with the machine to itself, and beside an endless `vla train` with the same setting
libgomp                 GOMP_SPINCOUNT=300000, what libgomp does where nobody sets anything
vla                     3,000, what the commands set (vla/base/openmp.py)
30000                   ten times that
passive                 OMP_WAIT_POLICY=passive: threads sleep at once

The settings take turns. The policy is the demo's, the encoder the small one.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import tomli_w
from demonstrations import SMALL, write_images, write_random_cache
from machine import machine
from measure import RESULTS, rounded, show

from vla.base.files import write_json

SETTINGS = {
    "libgomp": {"GOMP_SPINCOUNT": "300000"},
    "vla": {},
    "30000": {"GOMP_SPINCOUNT": "30000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
POLICY = {
    "policy.per_view_dim": 96,
    "policy.cond_dim": 192,
    "policy.n_emb": 128,
    "policy.n_layer": 4,
    "policy.n_head": 4,
    "train.batch_size": 64,
    "train.log_every": 1,
    "train.rollout_every": 0,
    "train.val_episodes": 0,
    "train.tracker": "none",
}
UPDATES, EMBED_FRAMES, EPISODES, EPISODE_STEPS = 12, 60, 2, 48
NEIGHBOUR_S = 600
"""A neighbour that has not made an update by then never will."""


class Work:
    """The commands that are timed, and the small data that they work on.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._images = write_images(folder / "images", EMBED_FRAMES)
        self._cache = write_random_cache(folder / "random", 1000, dim=128).folder
        embedded = vla({}, "embed", "--dataset", str(self._images), "--out", str(folder / "c"), *ENCODER)
        self._seen = Path(embedded["cache"])
        self.policy = self._new("policy")
        vla({}, "train", "--cache", str(self._seen), "--out", str(self.policy), "--steps", "0", *sets(POLICY))

    def train(self, setting: dict[str, str]) -> float:
        out = self._new("train")
        vla(setting, *self._training(out, UPDATES))
        return update_s(out)

    def embed(self, setting: dict[str, str]) -> float:
        out = self._new("cache")
        made = vla(setting, "embed", "--dataset", str(self._images), "--out", str(out), *ENCODER)
        return float(made["seconds"]) / EMBED_FRAMES

    def rollout(self, setting: dict[str, str]) -> float:
        options = {
            "rollout.episodes": EPISODES,
            "rollout.videos": 0,
            "env.kwargs.max_episode_steps": EPISODE_STEPS,
        }
        out = self._new("rollout")
        info = vla(setting, "rollout", str(self.policy), "--out", str(out), *sets(options))
        return float(info["aggregated"]["eval_s"]) / EPISODES

    def sweep(self, setting: dict[str, str]) -> float:
        out, suite = self._new("sweep"), self._folder / "suite.toml"
        base = self._folder / "base.toml"
        base.write_text("")
        asked = {"name": "two", "config": str(base), "seeds": [0, 1], "cache": str(self._cache)}
        suite.write_text(tomli_w.dumps({**asked, "set": {**POLICY, "train.steps": UPDATES}}))
        vla(setting, "sweep", str(suite), "--out", str(out), "--device", "cpu", "--jobs", "2")
        return median(update_s(path.parent) for path in out.rglob("metrics.jsonl"))

    @contextlib.contextmanager
    def neighbour(self, setting: dict[str, str]) -> Iterator[None]:
        """Train beside whatever is timed; it has begun when this returns."""
        out = self._new("neighbour")
        command = [sys.executable, "-m", "vla", *self._training(out, 1_000_000)]
        process = subprocess.Popen(
            command, env=environment(setting), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + NEIGHBOUR_S
        try:
            while not (out / "metrics.jsonl").is_file():
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"the neighbour does not train: {' '.join(command)}")
                time.sleep(0.2)
            yield
        finally:
            process.kill()
            process.wait()

    def _training(self, out: Path, steps: int) -> list[str]:
        named = ["--cache", str(self._cache), "--out", str(out), "--steps", str(steps), "--device", "cpu"]
        return ["train", *named, *sets(POLICY)]

    def _new(self, name: str) -> Path:
        self._number += 1
        return self._folder / f"{name}{self._number}"


ENCODER = ("--encoder", SMALL, "--device", "cpu")


def sets(values: dict[str, Any]) -> list[str]:
    return [f"--set={key}={value}" for key, value in values.items()]


def environment(setting: dict[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    return {**inherited, **setting}


def vla(setting: dict[str, str], *words: str) -> dict[str, Any]:
    """Run a command in a process of its own and return what it prints."""
    command = [sys.executable, "-m", "vla", *words, "--json"]
    finished = subprocess.run(command, env=environment(setting), capture_output=True, text=True)
    if finished.returncode:
        sys.exit(f"{' '.join(command)}\n{finished.stderr[-2000:]}")
    printed: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return printed


def update_s(run: Path) -> float:
    """Return the seconds of an update of a run, its first ones left out."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return median(row["update_s"] for row in rows[2:] if "update_s" in row)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--without", nargs="*", default=[], help="what is not timed, such as rollout")
    options.add_argument("--settings", nargs="*", choices=[*SETTINGS], default=[*SETTINGS])
    options.add_argument("--out", type=Path, default=RESULTS / "shared_cores.json")
    arguments = options.parse_args()
    out = arguments.out.resolve()
    # Not here: the commands would take ./pipeline.toml.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        work = Work(Path(folder))
        timed: dict[str, Callable[[dict[str, str]], float]] = {
            "train": work.train,
            "embed": work.embed,
            "rollout": work.rollout,
            "sweep": work.sweep,
        }
        timed = {name: run for name, run in timed.items() if name not in arguments.without}
        seconds: dict[str, dict[str, list[float]]] = {}
        loads = []
        for turn in range(arguments.rounds):
            for setting in arguments.settings[:: 1 if turn % 2 == 0 else -1]:
                for name, run in timed.items():
                    seconds.setdefault(f"{name}, alone", {}).setdefault(setting, []).append(
                        run(SETTINGS[setting])
                    )
                with work.neighbour(SETTINGS[setting]):
                    for name, run in timed.items():
                        seconds.setdefault(f"{name}, shared", {}).setdefault(setting, []).append(
                            run(SETTINGS[setting])
                        )
                loads.append(os.getloadavg()[0])
                print(f"{setting}: {seconds}", file=sys.stderr, flush=True)
    table = {
        name: {
            **{f"{setting}_s": rounded(median(taken), 3) for setting, taken in by_setting.items()},
        }
        for name, by_setting in seconds.items()
    }
    result = {
        "benchmark": "shared_cores",
        "machine": machine(),
        "load_average": [round(load, 1) for load in loads],
        "rounds": arguments.rounds,
        "table": table,
    }
    write_json(out, result)
    show(result)


if __name__ == "__main__":
    main()
