"""Kill vla at random moments, start it again, and compare with a run that was left alone.

    python benchmarks/faults.py                      50 kills of embed, 20 each of train and record
    python benchmarks/faults.py --embed 5 --train 2 --record 2 --seed 7

In a cycle a command is killed (SIGKILL) one to four times, each time after a random share of the time
that it takes undisturbed, and then left to finish. Caches, datasets and checkpoints must have the bytes of
the undisturbed run, training its losses too; nothing else may lie beside them. A stage's results take the
place of its earlier ones in benchmarks/results/faults.json; the exit code is 1 if anything differed.

Commands run in forks of this process, which has imported everything and computed nothing: a start takes
milliseconds, not seconds, so kills fall on the work and not on imports.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results/faults.json"
MOST_KILLS_A_CYCLE = 4
PATIENCE_S = 300.0


class Stage(ABC):
    """One command on small inputs."""

    name: str

    @abstractmethod
    def command(self, out: Path) -> list[str]:
        """Return the arguments that start the work in `out`, or go on with it."""

    @abstractmethod
    def kept(self, out: Path) -> list[Path]:
        """Return the files that later starts build upon."""

    def result(self, out: Path) -> dict[str, Any]:
        """Return what must be equal: all files by name."""
        files = sorted(path for path in out.parent.rglob("*") if path.is_file())
        return {str(p.relative_to(out.parent)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


class Embed(Stage):
    name = "embed"

    def __init__(self, work: Path) -> None:
        self._demos = work / "demos"
        write_demonstrations(self._demos, work / "log")

    def command(self, out: Path) -> list[str]:
        named = ["--dataset", str(self._demos), "--encoder", "siglip2-tiny-random", "--out", str(out)]
        return ["embed", *named, "--device", "cpu", "--set", "cache.shard_frames=8"]

    def kept(self, out: Path) -> list[Path]:
        return list(out.glob("*/shards/[0-9]*"))


class Train(Stage):
    name = "train"
    SETTINGS = (
        *(
            "policy.cond_dim=32",
            "policy.n_emb=32",
            "policy.n_layer=2",
            "policy.n_head=2",
            "policy.per_view_dim=16",
        ),
        *("train.steps=60", "train.batch_size=16", "train.device=cpu", "train.rollout_every=0"),
        # Not multiples of each other: a kill may fall between a checkpoint and a line of figures.
        *("train.save_every=7", "train.log_every=5", "train.val_every=20", "train.val_episodes=1"),
    )

    def __init__(self, work: Path) -> None:
        demos = work / "demos"
        write_demonstrations(demos, work / "log")
        self._cache = work / "features"
        named = ["--dataset", str(demos), "--encoder", "siglip2-tiny-random", "--out", str(self._cache)]
        require(finish(["embed", *named, "--device", "cpu"], work / "log") == 0, work / "log")

    def command(self, out: Path) -> list[str]:
        named = ["--cache", str(self._cache), "--encoder", "siglip2-tiny-random", "--out", str(out)]
        resume = ["--resume"] if (out / "pipeline.toml").exists() else []
        return ["train", *named, *[f"--set={setting}" for setting in self.SETTINGS], *resume]

    def kept(self, out: Path) -> list[Path]:
        return list(out.glob("checkpoints/[0-9]*"))

    def result(self, out: Path) -> dict[str, Any]:
        """Return the losses, and all files but those that hold times or the place."""
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses = [(row["step"], row["kind"], row["loss"], row.get("grad_norm")) for row in rows]
        timed = ("pipeline", "metrics", "tensorboard", "plots", "figures", "checksums")
        files = {k: v for k, v in super().result(out).items() if not any(part in k for part in timed)}
        return {"losses": losses, **files}


class Record(Stage):
    name = "record"

    def __init__(self, work: Path) -> None:
        del work

    def command(self, out: Path) -> list[str]:
        size = "{ render_height = 24, render_width = 32, cameras = ['top'] }"
        settings = ["--set", f"env.kwargs={size}", "--set", "record.image_size=[16, 16]"]
        return ["record", "--episodes", "3", "--workers", "2", "--out", str(out), *settings]

    def kept(self, out: Path) -> list[Path]:
        return list(out.parent.glob("*.partial/attempts/[0-9]*"))


def write_demonstrations(root: Path, log: Path) -> None:
    """Write a LeRobotDataset of random images and smooth motions, in a fork."""
    require(wait(fork(lambda: _write_demonstrations(root), log), PATIENCE_S) == 0, log)


def _write_demonstrations(root: Path) -> None:
    import pyarrow as pa

    from vla.rollout.attempt import encode_png, histogram
    from vla.rollout.lerobot_writer import EpisodeTable, make_features, write_dataset

    rng = np.random.default_rng(0)
    names, size, length = ["a", "b", "c"], (32, 32), 40

    def episode() -> EpisodeTable:
        images = rng.integers(0, 256, (length, *size, 3), dtype=np.uint8)
        path = np.cumsum(rng.normal(size=(length, 3)), axis=0).astype(np.float32)
        columns = {
            "observation.images.top": [{"bytes": encode_png(image), "path": None} for image in images],
            "observation.state": list(path),
            "action": list(path + 1),
            "next.reward": np.zeros(length, np.float32),
            "next.success": np.zeros(length, bool),
            "timestamp": (np.arange(length) / 25).astype(np.float32),
            "frame_index": np.arange(length),
        }
        counts = sum(histogram(image) for image in images)
        return EpisodeTable(
            frames=pa.table(columns), histograms={"observation.images.top": np.asarray(counts)}
        )

    write_dataset(root, make_features(["top"], size, names), 25, "Move.", [episode() for _ in range(3)])


def start(command: Sequence[str], log: Path) -> int:
    """Run a command of vla in a fork of this process; return its process id."""
    from vla.cli import main

    return fork(lambda: main(list(command)), log)


def fork(job: Callable[[], object], log: Path) -> int:
    """Run something in a fork of this process; return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(log.parent)  # where no pipeline.toml lies
        import torch

        torch.set_num_threads(1)  # sums of floats depend on the number of threads
        job()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """Return the exit code of a fork, negative for a signal; None if it still runs after some seconds."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(min(0.002, max(0.0, end - time.monotonic())))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def finish(command: Sequence[str], log: Path) -> int:
    """Run a command to its end; return its exit code."""
    pid = start(command, log)
    code = wait(pid, PATIENCE_S)
    if code is None:
        kill(pid)
        raise SystemExit(f"vla {' '.join(command)} did not end within {PATIENCE_S:.0f} s; see {log}")
    return code


def require(good: bool, log: Path) -> None:
    if not good:
        raise SystemExit(f"a command failed: {log.read_text()[-2000:]}")


def torture(stage: Stage, work: Path, kills: int, rng: np.random.Generator) -> dict[str, Any]:
    """Kill a stage so often; return what came of it."""
    began = time.monotonic()
    log = work / "log"
    whole = work / "whole/out"
    whole.parent.mkdir()
    require(finish(stage.command(whole), log) == 0, log)
    undisturbed = time.monotonic() - began
    expected = stage.result(whole)
    injected, cycles, mismatches, failed_starts, into_work = 0, 0, 0, 0, 0
    lost: list[float] = []
    while injected < kills:
        out = work / "cycle/out"
        out.parent.mkdir()
        for _ in range(int(rng.integers(1, MOST_KILLS_A_CYCLE + 1))):
            if injected == kills or _is_done(stage, out):
                break
            started = time.time()
            pid = start(stage.command(out), log)
            early = wait(pid, rng.uniform(0, undisturbed))
            if early is not None:  # done before its time had come
                failed_starts += early != 0
                break
            kill(pid)
            injected += 1
            newest = max((path.stat().st_mtime for path in stage.kept(out)), default=0.0)
            into_work += newest > started
            lost.append(time.time() - max(started, newest))
        code = finish(stage.command(out), log) if not _is_done(stage, out) else 0
        failed_starts += code != 0
        found = stage.result(out) if code == 0 else {}
        if found != expected:
            mismatches += 1
            differing = sorted(k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k))
            print(f"{stage.name}: differs in {differing[:5]}; see {log}", flush=True)
        cycles += 1
        shutil.rmtree(out.parent)
        print(f"{stage.name}: {injected}/{kills} kills, {mismatches} mismatches", flush=True)
    return {
        "kills": injected,
        "kills_after_something_new_was_kept": into_work,
        "comparisons": cycles,
        "mismatches": mismatches,
        "starts_that_failed": failed_starts,
        "undisturbed_s": round(undisturbed, 2),
        "work_lost_s": {
            "mean": round(float(np.mean(lost)), 3),
            "max": round(float(np.max(lost)), 3),
            "sum": round(float(np.sum(lost)), 1),
        },
        "seconds": round(time.monotonic() - began, 1),
    }


def _is_done(stage: Stage, out: Path) -> bool:
    """A finished recording is not made again: vla refuses to write over it."""
    return stage.name == "record" and out.exists()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kills in (("embed", 50), ("train", 20), ("record", 20)):
        parser.add_argument(f"--{name}", type=int, default=kills, help="kills; 0 leaves it out")
    parser.add_argument("--seed", type=int, default=0)
    chosen = vars(parser.parse_args())
    from machine import machine

    import_everything()
    rows: dict[str, Any] = {}
    stages: tuple[Callable[[Path], Stage], ...] = (Embed, Train, Record)
    for number, (name, make) in enumerate(zip(("embed", "train", "record"), stages, strict=True)):
        if chosen[name]:
            with tempfile.TemporaryDirectory(prefix="vla-faults-") as folder:
                rng = np.random.default_rng([chosen["seed"], number])
                rows[name] = torture(make(Path(folder)), Path(folder), chosen[name], rng)
            keep(name, {"seed": chosen["seed"], **rows[name], "machine": machine()})
    print("stage    kills  compared  mismatches  work lost: mean, max [s]  seconds")
    for name, row in rows.items():
        lost = f"{row['work_lost_s']['mean']:.2f}, {row['work_lost_s']['max']:.2f}"
        print(
            f"{name:8} {row['kills']:5} {row['comparisons']:9} {row['mismatches']:11}  {lost:>24} "
            f"{row['seconds']:8.0f}"
        )
    if any(row["mismatches"] or row["starts_that_failed"] for row in rows.values()):
        raise SystemExit(1)


def keep(stage: str, row: dict[str, Any]) -> None:
    """Write the results of a stage over its earlier ones."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**kept, stage: row}, indent=2, sort_keys=True) + "\n")


def import_everything() -> None:
    """Import what the commands would, and compute nothing: threads do not survive a fork."""
    import matplotlib.pyplot
    import torch.utils.tensorboard
    import transformers.models.siglip.modeling_siglip

    import vla.config
    import vla.embed
    import vla.policy.plots
    import vla.policy.train
    import vla.rollout.record
    import vla.stages

    del matplotlib, torch, transformers, vla


if __name__ == "__main__":
    main()
