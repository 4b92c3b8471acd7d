"""Let a command's disk be full at a random moment: a small tmpfs, most of it taken by another file."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fault_stages import Stage
from forked import finish, require, start, wait

SIZE = 64 << 20
"""Of the disk [byte]; its pages take memory only when they are written."""
PAGE = os.sysconf("SC_PAGE_SIZE")
WHAT_TO_DO = ("make room", "run the same command")

Same = Callable[[Stage, dict[str, Any], dict[str, Any], Path], bool]


class CannotMountError(Exception):
    """No tmpfs can be mounted here: that takes root, or a container that allows it."""


def fill_disks(stage: Stage, work: Path, disks: int, rng: np.random.Generator, same: Same) -> dict[str, Any]:
    """Run a stage on a disk with room for a random share of what it writes, then make room.

    Args:
        stage: the command.
        work: an empty folder on another disk.
        disks: how often.
        rng: draws the shares.
        same: compares results, and says where they differ.

    Raises:
        CannotMountError: no tmpfs can be mounted.
    """
    began = time.monotonic()
    out, log = work / "disk/out", work / "log"
    counts = dict.fromkeys(("disks", "full", "mismatches", "bad_messages", "files_kept_and_made_again"), 0)
    with Disk(work / "disk"):
        pid, needed = start(stage.command(out), log), 0
        while (code := wait(pid, 0.01)) is None:
            needed = max(needed, used(out.parent))
        require(code == 0, log)
        expected = stage.result(out)
    while counts["disks"] < disks:
        with Disk(work / "disk"):
            # First no room at all, then nearly enough, then anything in between.
            rooms = {0: 0, 1: needed - PAGE}
            room = rooms.get(counts["disks"], int(rng.uniform(0, needed)))
            take(work / "disk/other", SIZE - room)
            said = log.stat().st_size
            code = finish(stage.command(out), log)
            counts["full"] += code != 0
            counts["bad_messages"] += code != 0 and not is_good(log.read_text()[said:])
            stamps = {path: path.stat().st_mtime_ns for path in stage.kept(out)}
            (work / "disk/other").unlink()
            if code != 0:
                require(finish(stage.command(out), log) == 0, log)
            redone = [
                path for path, stamp in stamps.items() if path.exists() and path.stat().st_mtime_ns != stamp
            ]
            counts["files_kept_and_made_again"] += len(redone)
            counts["mismatches"] += not same(stage, expected, stage.result(out), log)
        counts["disks"] += 1
        print(f"{stage.name}, full disk: {counts}", flush=True)
    return {**counts, "seconds": round(time.monotonic() - began, 1)}


def is_good(said: str) -> bool:
    """Tell whether a command that failed said so in one line, with what to do, and said nothing else."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    good = len(errors) == 1 and any(advice in errors[0] for advice in WHAT_TO_DO)
    if not good or "Traceback" in said:
        print(f"not one line that says what to do:\n{said[-3000:]}", flush=True)
        return False
    print(errors[0], flush=True)
    return True


class Disk:
    """A small tmpfs, mounted as long as the context lasts."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> "Disk":
        self._place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "vla-faults", str(self._place)]
        try:
            mounted = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            self._place.rmdir()
            raise CannotMountError(str(error)) from error
        if mounted.returncode:
            self._place.rmdir()
            raise CannotMountError(mounted.stderr.strip())
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", str(self._place)], check=True)
        self._place.rmdir()


def used(place: Path) -> int:
    """Return how many bytes of a disk are taken."""
    return shutil.disk_usage(place).used


def take(file: Path, size: int) -> None:
    """Take bytes of a disk."""
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, size)
