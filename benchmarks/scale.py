"""What size costs: caches of 0.1, 1 and 10 million frames of small vectors, opened, read and trained on.

    python benchmarks/scale.py                      the largest takes 1 GB of disk; some ten minutes
    python benchmarks/scale.py --frames 100000

A frame has a feature of 16 numbers, state and action of 7, and takes 96 bytes; an episode has 200 frames; a
cache has ten parts, as one that has grown ten times. Every figure is taken in a process of its own. Memory is
what that process has at most beyond what it had when everything was imported: anonymous memory, which is its
own, and apart from it pages of mapped files, which the system takes back when others want them.
"""

import argparse
import hashlib
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from demonstrations import MemorySource, untrained_identity
from measure import parser, rounded, save

from vla.base.distributed import World
from vla.base.interrupt import Signals
from vla.cache import ACTION, STATE, CacheSpec, FeatureCache, Stream
from vla.cache.part_writer import PartWriter
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.training.meter import Meter
from vla.policy.training.run import RunDirectory
from vla.policy.training.train_config import TrainConfig
from vla.policy.training.trainer import Trainer

FRAMES = (100_000, 1_000_000, 10_000_000)
PARTS, DIM, VECTOR = 10, 16, 7
STEPS = 30
POLICY = VLAAgentConfig(per_view_dim=16, cond_dim=32, n_emb=32, n_layer=1, n_head=2)
MIB = 2**20


def write_cache(folder: Path, frames: int) -> None:
    """Write a cache of random numbers, the same in every shard, in ten parts."""
    source, encoder = MemorySource(frames, size=(1, 1)), untrained_identity()
    contents = tuple(hashlib.sha256(c).digest() for c in source.contents(range(len(source.episodes))))
    vectors = ((STATE, "observation.state"), (ACTION, "action"))
    spec = CacheSpec(
        dataset=source.identity(contents),
        streams=(
            Stream(name="top", kind="tokens", dtype="float16", shape=(1, DIM), made_by=encoder.digest),
            *(Stream(name=n, kind="vector", dtype="float32", shape=(VECTOR,), key=k) for n, k in vectors),
        ),
        encoders={encoder.digest: encoder},
        episodes=source.episodes,
        contents=contents,
        shard_frames=4096,
    )
    borders = [len(contents) * k // PARTS for k in range(PARTS + 1)]
    parts = [spec.part_of(contents[a:b]) for a, b in itertools.pairwise(borders)]
    rng = np.random.default_rng(0)
    for part in parts:
        writer = PartWriter(folder, part)
        writer.begin()
        first = writer.allocate(0)
        drawn = {
            s.name: rng.standard_normal(first[s.name].shape, np.float32).astype(s.dtype) for s in spec.streams
        }
        for shard in range(part.num_shards):
            arrays = writer.allocate(shard)
            for name, values in drawn.items():
                arrays[name][:] = values[: len(arrays[name])]
            writer.write(shard, arrays)
        writer.finish()
    spec.write_manifest(folder, parts, None)


def opened(folder: Path) -> dict[str, float]:
    """Open a cache, and read some frames from all over it."""
    with memory() as figures:
        began = time.perf_counter()
        cache = FeatureCache(folder)
        figures["open_s"] = time.perf_counter() - began
        frames = torch.randint(cache.num_frames, (256,), generator=torch.Generator().manual_seed(0))
        began = time.perf_counter()
        cache.rows("top", frames)
        figures["first_256_frames_s"] = time.perf_counter() - began
    return figures


def trained(folder: Path, mapped: bool) -> dict[str, float]:
    """Train a small policy for some steps, the cache in memory or on the disk."""
    torch.set_num_threads(1)  # a small policy; threads would wait for each other
    settings = {
        "steps": STEPS + 1,
        "device": "cpu",
        "rollout_every": 0,
        "tracker": "none",
        "max_cache_gib": 1e-6 if mapped else 100,
    }
    config = TrainConfig.model_validate(settings)
    meter = Meter(config.batch_size, World())
    with tempfile.TemporaryDirectory() as out, memory() as figures:
        began = time.perf_counter()
        run = RunDirectory.create(Path(out) / "run")
        trainer = Trainer(run, FeatureCache(folder), POLICY, config, None, World(), Signals())
        trainer.step(meter)
        figures["until_the_first_step_s"] = time.perf_counter() - began
        batches, updates = [], []
        for _ in range(STEPS):
            began = time.perf_counter()
            batch = next(trainer.batches)
            loaded = time.perf_counter()
            trainer.update(batch, meter)
            batches.append(loaded - began)
            updates.append(time.perf_counter() - loaded)
        figures |= {"batch_ms": 1e3 * median(batches), "update_ms": 1e3 * median(updates)}
    return figures


@contextmanager
def memory() -> Iterator[dict[str, float]]:
    """Note the most memory that is taken meanwhile [MiB]."""
    before, most, ended = resident(), dict.fromkeys(("RssAnon", "RssFile"), 0.0), threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            now = resident()
            most.update({name: max(most[name], now[name]) for name in most})

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    figures: dict[str, float] = {}
    try:
        yield figures
    finally:
        ended.set()
        watcher.join()
        figures["memory_mib"] = most["RssAnon"] - before["RssAnon"]
        figures["mapped_mib"] = most["RssFile"] - before["RssFile"]


def resident() -> dict[str, float]:
    """Return this process's own memory and its pages of files [MiB]."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0][:-1]: int(line[1]) / 1024 for line in lines if line and line[0].startswith("Rss")}


JOBS: dict[str, Callable[[Path], dict[str, float]]] = {
    "open": opened,
    "train_in_memory": partial(trained, mapped=False),
    "train_from_disk": partial(trained, mapped=True),
}


def in_a_process(job: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--job", job, "--cache", str(folder)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return {name: rounded(value, 3) for name, value in figures.items()}


def measure(frames: int) -> dict[str, Any]:
    """Return all figures of one size."""
    with tempfile.TemporaryDirectory(prefix="vla-scale-") as place:
        folder, began = Path(place), time.perf_counter()
        write_cache(folder, frames)
        written = time.perf_counter() - began
        shards = FeatureCache(folder).files()
        return {
            "episodes": len(FeatureCache(folder).metadata.episodes),
            "shards": len(shards),
            "shards_mib": rounded(sum(path.stat().st_size for path in shards) / MIB),
            "cache_json_kib": rounded((folder / "cache.json").stat().st_size / 1024, 3),
            "table_mib": rounded(
                sum(path.stat().st_size for path in folder.glob("episodes-*.parquet")) / MIB, 3
            ),
            "write_s": rounded(written, 3),
            **{job: in_a_process(job, folder) for job in JOBS},
        }


def main() -> None:
    options = parser(__doc__, "scale")
    options.add_argument("--frames", type=int, nargs="+", default=FRAMES, help="sizes")
    options.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    options.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.job:
        print(json.dumps(JOBS[arguments.job](arguments.cache)))
        return
    # A shard is a mapping, not an open file; a limit of 1,024 must be no obstacle.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    sizes: dict[str, Any] = {"open_files_allowed": limit}
    for frames in (10_000,) if arguments.tiny else arguments.frames:
        sizes[str(frames)] = measure(frames)
        print(f"{frames}: {sizes[str(frames)]}", flush=True)
        save(arguments, "scale", sizes, "nothing", whole=frames == arguments.frames[-1] or arguments.tiny)


if __name__ == "__main__":
    main()
