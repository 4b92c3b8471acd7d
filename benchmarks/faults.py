"""Kill vla at random moments, fill its disk, start it again, and compare with a run that was left alone.

    python benchmarks/faults.py                      50 kills of embed, 20 each of train, record and sweep, 50
                                                     of embed over a cache that is there, 20 of compact;
                                                     4 full disks each for embed, train and record
    python benchmarks/faults.py --embed 5 --train 0 --record 2 --sweep 0 --grow 0 --compact 0 --disk 0

In a cycle a command is killed (SIGKILL) one to four times and then left to finish. A kill comes a random
moment after a random number of files were kept (shards, checkpoints, attempts), which may be none; of a
sweep either its children train on, or they are killed with it. Caches, datasets and checkpoints must have
the bytes of the undisturbed run, training its losses too, a suite its status, manifest and table; nothing
else may lie beside them, no process may be left, and no file that was kept may be made again. A cache that
was there before must be readable after each kill.

A stage's results take the place of its earlier ones in benchmarks/results/faults.json; the exit code is 1
if anything differed.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fault_stages import STAGES, Stage
from forked import finish, left_alive, require, start, wait
from full_disk import CannotMountError, fill_disks
from growing_stages import GROWING

RESULTS = Path(__file__).parent / "results/faults.json"
MOST_KILLS_A_CYCLE = 4
KILLS = {"embed": 50, "train": 20, "record": 20, "sweep": 20, "grow": 50, "compact": 20}


class Cycle:
    """One output, killed a few times and then finished."""

    def __init__(self, stage: Stage, work: Path, undisturbed: float) -> None:
        self.stage, self.out, self.log = stage, work / "cycle/out", work / "log"
        self.undisturbed = undisturbed
        stage.prepare(self.out)
        self.stamps: dict[Path, int] = {}
        self.redone, self.unusable = 0, 0
        self.look()

    @property
    def is_done(self) -> bool:
        """A finished recording is not made again: vla refuses to write over it."""
        return self.stage.name == "record" and self.out.exists()

    def start_and_kill(self, rng: np.random.Generator) -> dict[str, float] | int:
        """Start the command and kill it; return what came of it, or the exit code if it ended before."""
        began = time.time()
        pid = start(self.stage.command(self.out), self.log)
        if (code := self._moment(pid, rng)) is not None:
            return code
        stands_still = self.stage.kill(pid, rng)
        now, before = time.time(), len(self.stamps)
        self.look()
        self.unusable += not self.stage.is_usable(self.out, self.log)
        newest = max((stamp / 1e9 for stamp in self.stamps.values()), default=0.0)
        return {
            "kept": len(self.stamps) - before,
            "kept_s": max(0.0, newest - began),
            "lost_s": now - max(began, newest) if stands_still else 0.0,
            "orphaned": not stands_still,
        }

    def finish(self) -> int:
        code = 0 if self.is_done else finish(self.stage.command(self.out), self.log)
        self.look()
        return code

    def look(self) -> None:
        """Note the files that are kept, and which of those that were have been made again."""
        stamps = {path: path.stat().st_mtime_ns for path in self.stage.kept(self.out)}
        self.redone += sum(stamps.get(path, stamp) != stamp for path, stamp in self.stamps.items())
        self.stamps |= stamps

    def _moment(self, pid: int, rng: np.random.Generator) -> int | None:
        """Wait for the moment of a kill; return the exit code if there was none."""
        have = len(self.stage.kept(self.out))
        wanted = int(rng.integers(have, self.stage.pieces + 1))
        while have < wanted:
            if (code := wait(pid, 0.01)) is not None:
                return code
            have = len(self.stage.kept(self.out))
            if have >= wanted:
                return wait(pid, rng.uniform(0, self.undisturbed / self.stage.pieces))
        return wait(pid, rng.uniform(0, self.undisturbed))


def torture(stage: Stage, work: Path, kills: int, rng: np.random.Generator) -> dict[str, Any]:
    """Kill a stage so often; return what came of it."""
    began = time.monotonic()
    whole = work / "whole/out"
    stage.prepare(whole)
    started = time.monotonic()
    require(finish(stage.command(whole), work / "log") == 0, work / "log")
    undisturbed = time.monotonic() - started
    expected = stage.result(whole)
    cycles, mismatches, failed_starts, redone, left, unusable = 0, 0, 0, 0, 0, 0
    killed: list[dict[str, float]] = []
    while len(killed) < kills:
        cycle = Cycle(stage, work, undisturbed)
        for _ in range(int(rng.integers(1, MOST_KILLS_A_CYCLE + 1))):
            if len(killed) == kills or cycle.is_done:
                break
            ended = cycle.start_and_kill(rng)
            if isinstance(ended, int):  # done before its time had come
                failed_starts += ended != 0
                break
            killed.append(ended)
        code = cycle.finish()
        failed_starts += code != 0
        mismatches += not same(stage, expected, stage.result(cycle.out) if code == 0 else {}, work / "log")
        left += left_alive(seconds=10)
        redone += cycle.redone
        unusable += cycle.unusable
        cycles += 1
        shutil.rmtree(cycle.out.parent)
        print(f"{stage.name}: {len(killed)}/{kills} kills, {mismatches} mismatches", flush=True)
    lost = [kill["lost_s"] for kill in killed]
    return {
        "kills": len(killed),
        "kills_after_something_new_was_kept": sum(kill["kept"] > 0 for kill in killed),
        "kills_that_left_children_at_work": sum(kill["orphaned"] for kill in killed),
        "comparisons": cycles,
        "mismatches": mismatches,
        "starts_that_failed": failed_starts,
        "processes_left": left,
        "files_kept": sum(kill["kept"] for kill in killed),
        "files_kept_and_made_again": redone,
        "caches_not_readable_after_a_kill": unusable,
        "undisturbed_s": round(undisturbed, 2),
        "work_kept_s": round(sum(kill["kept_s"] for kill in killed), 1),
        "work_lost_s": {
            "mean": round(float(np.mean(lost)), 3),
            "max": round(float(np.max(lost)), 3),
            "sum": round(float(np.sum(lost)), 1),
        },
        "seconds": round(time.monotonic() - began, 1),
    }


def same(stage: Stage, expected: dict[str, Any], found: dict[str, Any], log: Path) -> bool:
    """Compare results, and say where they differ."""
    differing = sorted(k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k))
    if differing:
        print(f"{stage.name}: differs in {differing[:5]}; the end of the log:", flush=True)
        print(log.read_text()[-1500:], flush=True)
    return not differing


def is_bad(row: dict[str, Any]) -> bool:
    faults = (
        "mismatches",
        "starts_that_failed",
        "processes_left",
        "files_kept_and_made_again",
        "bad_messages",
        "caches_not_readable_after_a_kill",
    )
    return any(row.get(key) for key in faults)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kills in KILLS.items():
        parser.add_argument(f"--{name}", type=int, default=kills, help="kills; 0 leaves it out")
    parser.add_argument("--disk", type=int, default=4, help="full disks a stage; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0)
    chosen = vars(parser.parse_args())
    from machine import machine

    import_everything()
    rows: dict[str, dict[str, Any]] = {}
    for number, make in enumerate((*STAGES, *GROWING)):
        if chosen[make.name]:
            with tempfile.TemporaryDirectory(prefix="vla-faults-") as folder:
                rng = np.random.default_rng([chosen["seed"], number])
                row = torture(make(Path(folder)), Path(folder), chosen[make.name], rng)
            rows[make.name] = {"seed": chosen["seed"], **row, "machine": machine()}
            keep({make.name: rows[make.name]})
    disks: dict[str, dict[str, Any]] = {}
    for number, make in enumerate(STAGES[:3]):
        if chosen["disk"]:
            rng = np.random.default_rng([chosen["seed"], 100 + number])
            try:
                with tempfile.TemporaryDirectory(prefix="vla-faults-") as folder:
                    row = fill_disks(make(Path(folder)), Path(folder), chosen["disk"], rng, same)
            except CannotMountError as error:
                print(f"full disks are left out: {error}")
                break
            disks[make.name] = {"seed": chosen["seed"], **row, "machine": machine()}
    if disks:
        keep({"full_disk": disks})
    show(rows, disks)
    if any(is_bad(row) for row in [*rows.values(), *disks.values()]):
        raise SystemExit(1)


def show(rows: dict[str, dict[str, Any]], disks: dict[str, dict[str, Any]]) -> None:
    """Print what came out as two tables."""
    titles = ["kills", "after files were kept", "compared", "mismatches", "files kept", "made again"]
    print_row(["stage", *titles, "processes left", "work kept [s]", "lost: sum, mean, max [s]", "seconds"])
    keys = ("kills", "kills_after_something_new_was_kept", "comparisons", "mismatches", "files_kept")
    for name, row in rows.items():
        lost = ", ".join(f"{row['work_lost_s'][key]:.1f}" for key in ("sum", "mean", "max"))
        cells = [name, *(row[key] for key in keys), row["files_kept_and_made_again"], row["processes_left"]]
        print_row([*cells, f"{row['work_kept_s']:.0f}", lost, f"{row['seconds']:.0f}"])
    for name, row in disks.items():
        counts = ", ".join(f"{value} {key}" for key, value in row.items() if isinstance(value, int))
        print(f"full disk, {name}: {counts}, {row['seconds']:.0f} s")


def print_row(cells: Sequence[object]) -> None:
    print("  ".join(str(cell) for cell in cells))


def keep(rows: dict[str, Any]) -> None:
    """Write results over their earlier ones."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**kept, **rows}, indent=2, sort_keys=True) + "\n")


def import_everything() -> None:
    """Import what the commands would, and compute nothing: threads do not survive a fork."""
    import matplotlib.pyplot
    import torch.utils.tensorboard
    import transformers.models.siglip.modeling_siglip

    import vla.cache.compact
    import vla.config
    import vla.embed.encoders.siglip_checkpoint
    import vla.embed.engine
    import vla.policy.agents.vla_agent
    import vla.policy.training.plots
    import vla.policy.training.train
    import vla.rollout.record.record
    import vla.stages
    import vla.suite.sweep

    del matplotlib, torch, transformers, vla


if __name__ == "__main__":
    main()
