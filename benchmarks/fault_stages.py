"""The commands that `faults.py` disturbs, each on small inputs, and what must be equal afterwards."""

import hashlib
import json
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from forked import PATIENCE_S, descendants, finish, fork, kill, require, wait


class Stage(ABC):
    """One command on small inputs.

    Attributes:
        pieces: as many files does `kept` come to.
    """

    name: str
    pieces: int

    @abstractmethod
    def command(self, out: Path) -> list[str]:
        """Return the arguments that start the work in `out`, or go on with it."""

    def prepare(self, out: Path) -> None:
        """Make the folder around `out`, and in it what is there before the first start."""
        out.parent.mkdir()

    def is_usable(self, out: Path, log: Path) -> bool:
        """Tell whether what has to stay usable all the time is, after a kill."""
        return True

    @abstractmethod
    def kept(self, out: Path) -> list[Path]:
        """Return the files that later starts build upon."""

    def kill(self, pid: int, rng: np.random.Generator) -> bool:
        """Kill a start; return whether the work stands still."""
        kill(pid)
        return True

    def result(self, out: Path) -> dict[str, Any]:
        """Return what must be equal: all files by name, with the place taken out of their bytes."""
        found = {}
        for path in sorted(path for path in out.parent.rglob("*") if path.is_file()):
            name = str(path.relative_to(out.parent))
            if not self.is_left_out(name):
                data = path.read_bytes().replace(str(out.parent).encode(), b"")
                found[name] = self.content(name, data)
        return found

    def is_left_out(self, name: str) -> bool:
        """Tell whether a file, and whether there is one, is no part of the result."""
        return False

    def content(self, name: str, data: bytes) -> Any:
        """Return what must be equal of a file."""
        return hashlib.sha256(data).hexdigest()


class Embed(Stage):
    name, pieces = "embed", 15

    def __init__(self, work: Path) -> None:
        self._demos = work / "demos"
        write_demonstrations(self._demos, work / "log")

    def command(self, out: Path) -> list[str]:
        named = ["--dataset", str(self._demos), "--encoder", "siglip2-tiny-random", "--out", str(out)]
        return ["embed", *named, "--device", "cpu", "--set", "cache.shard_frames=8"]

    def is_left_out(self, name: str) -> bool:
        return name.endswith(".identities/shards.parquet")  # holds times

    def kept(self, out: Path) -> list[Path]:
        return list(out.glob("*/parts/*/shards/[0-9]*"))


class Train(Stage):
    name, pieces = "train", 10  # nine, and the best if it is none of them
    SETTINGS = (
        *("policy.cond_dim=32", "policy.n_emb=32", "policy.n_layer=2", "policy.n_head=2"),
        *("train.steps=60", "train.batch_size=16", "train.device='cpu'", "train.rollout_every=0"),
        # Not multiples of each other: a kill may fall between a checkpoint and a line of figures.
        *("train.save_every=7", "train.log_every=5", "train.val_every=20", "train.val_episodes=1"),
    )

    def __init__(self, work: Path) -> None:
        demos = work / "demos"
        write_demonstrations(demos, work / "log")
        named = ["--dataset", str(demos), "--encoder", "siglip2-tiny-random", "--out", str(work / "features")]
        require(finish(["embed", *named, "--device", "cpu"], work / "log") == 0, work / "log")
        (self._cache,) = (path.parent for path in work.glob("features/*/cache.json"))

    def command(self, out: Path) -> list[str]:
        named = ["--cache", str(self._cache), "--encoder", "siglip2-tiny-random", "--out", str(out)]
        settings = [f"--set={setting}" for setting in (*self.SETTINGS, "policy.per_view_dim=16")]
        resume = ["--resume"] if (out / "pipeline.toml").exists() else []
        return ["train", *named, *settings, *resume]

    def kept(self, out: Path) -> list[Path]:
        return list(out.glob("checkpoints/[0-9]*"))

    def is_left_out(self, name: str) -> bool:
        return "tensorboard" in name  # a file a start, named by the time

    def content(self, name: str, data: bytes) -> Any:
        """Return the losses of `metrics.jsonl`, nothing of files that hold times, otherwise all."""
        if name.endswith("metrics.jsonl"):
            rows = [json.loads(line) for line in data.splitlines()]
            return [(row["step"], row["kind"], row["loss"], row.get("grad_norm")) for row in rows]
        if "checkpoints" in name and any(part in name for part in ("figures", "checksums")):
            return "holds times"
        return super().content(name, data)


class Record(Stage):
    name, pieces = "record", 6

    def __init__(self, work: Path) -> None:
        del work

    def command(self, out: Path) -> list[str]:
        size = "{ render_height = 24, render_width = 32, cameras = ['top'] }"
        settings = ["--set", f"env.kwargs={size}", "--set", "record.image_size=[16, 16]"]
        # Only what an attempt costs shares of: with two workers one core spends its time on their imports.
        return ["record", "--episodes", str(self.pieces), "--workers", "1", "--out", str(out), *settings]

    def kept(self, out: Path) -> list[Path]:
        return list(out.parent.glob("*.partial/attempts/[0-9]*"))


class Sweep(Train):
    """Two policies, trained side by side by children of the sweep."""

    name, pieces = "sweep", 2 * Train.pieces
    TIMES = ("pid", "sweep_pid", "started", "finished", "updated", "created")

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self._file = work / "suite.toml"
        settings = [f'"{key}" = {value}' for key, _, value in (s.partition("=") for s in self.SETTINGS)]
        settings = [line for line in settings if "device" not in line]  # the sweep's to give
        (work / "base.toml").write_text('[encoder]\nid = "siglip2-tiny-random"\n')
        lines = ['name = "faults"', 'config = "base.toml"', f'cache = "{self._cache}"', "jobs = 2", "[set]"]
        grid = ["[grid]", '"policy.per_view_dim" = [8, 16]']
        self._file.write_text("\n".join([*lines, *settings, *grid]) + "\n")

    def command(self, out: Path) -> list[str]:
        return ["sweep", str(self._file), "--out", str(out), "--device", "cpu"]

    def kept(self, out: Path) -> list[Path]:
        return list(out.glob("runs/*/checkpoints/[0-9]*"))

    def kill(self, pid: int, rng: np.random.Generator) -> bool:
        """Kill the sweep alone, whose children train on, or all of them, as a power cut would."""
        alone = bool(rng.integers(2))
        kill(pid)
        for child in () if alone else descendants():
            os.kill(child, signal.SIGKILL)
        return not alone

    def is_left_out(self, name: str) -> bool:
        return super().is_left_out(name) or "out/logs/" in name

    def content(self, name: str, data: bytes) -> Any:
        """Leave times and process ids out of status and manifest."""
        if name in ("out/status.json", "out/manifest.json"):
            return json.loads(
                data, object_pairs_hook=lambda pairs: dict(p for p in pairs if p[0] not in self.TIMES)
            )
        return super().content(name, data)


STAGES: tuple[type[Embed] | type[Train] | type[Record] | type[Sweep], ...] = (Embed, Train, Record, Sweep)


def write_demonstrations(root: Path, log: Path, episodes: Sequence[int] = range(3)) -> None:
    """Write a LeRobotDataset of random images and smooth motions, in a fork.

    Args:
        root: its directory.
        log: of the fork.
        episodes: which of endless episodes it has.
    """
    require(wait(fork(lambda: _write_demonstrations(root, episodes), log), PATIENCE_S) == 0, log)


def _write_demonstrations(root: Path, episodes: Sequence[int]) -> None:
    import pyarrow as pa

    from vla.embed.datasets.lerobot.writer import EpisodeTable, make_features, write_dataset
    from vla.rollout.record.attempt import encode_png, histogram

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

    all_of_them = [episode() for _ in range(max(episodes) + 1)]
    chosen = [all_of_them[number] for number in episodes]
    write_dataset(root, make_features(["top"], size, names), 25, "Move.", chosen)
