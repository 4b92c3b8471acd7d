"""How fast is `vla train`, next to the same step without any data path, and next to training on images?

    python benchmarks/train.py                   # on a CPU at reduced size, in at most 10 minutes
    python benchmarks/train.py --device cuda     # at full size

step          an update from the cache, over the same update on one fixed batch that is on the device already
from images   an update from the cache, against what users do today: decode and encode every batch anew
from disk     a cache of which nothing is in memory when a step begins, against one held in memory
compiled      GPU only: eager, CUDA graphs, and these with TF32; the time of 50,000 steps

The policy is the full-size one: 3 cameras, 192 a view, condition 384, 12 layers of 384, chunks of 16.
"""

import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from demonstrations import CAMERAS, FULL, camera_images, load_encoder, png, write_random_cache
from measure import matrix_rate, paired_ratio, parser, rounded, save, synchronise, take_turns
from torch.utils.flop_counter import FlopCounterMode

from vla.base.distributed import World
from vla.base.interrupt import Signals
from vla.cache import FeatureCache
from vla.cache.frames import advise_range
from vla.embed.datasets.images import decode_image
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.training.meter import Meter
from vla.policy.training.run import RunDirectory
from vla.policy.training.train_config import TrainConfig
from vla.policy.training.trainer import Trainer

REDUCED = "batch 32 instead of 256; a cache of 512 MiB; no torch.compile"
TINY_POLICY = VLAAgentConfig(per_view_dim=8, cond_dim=16, n_emb=16, n_layer=1, n_head=2)
COMPILED: dict[str, dict[str, str]] = {
    "eager": {},
    "graphs, tf32": {"compile": "graphs", "matmul_precision": "high"},
    "graphs": {"compile": "graphs"},
}


class Sizes:
    """How much is measured."""

    def __init__(self, device: str, tiny: bool) -> None:
        gpu = device == "cuda"
        self.policy = TINY_POLICY if tiny else VLAAgentConfig()
        self.batch = 256 if gpu else 8 if tiny else 32
        self.image_batch = 256 if gpu else 2 if tiny else 32
        self.rounds = 2 if tiny else 100 if gpu else 15
        self.image_rounds = 1 if tiny else 10 if gpu else 2
        self.frames = 2_000 if tiny else 200_000 if gpu else 20_000
        self.disk_frames = 4_096 if tiny else 1_000_000 if gpu else 116_000
        """4.6 kB a frame: 4.3 GiB, or 512 MiB."""


def main() -> None:
    arguments = parser(__doc__, "train").parse_args()
    device = torch.device(arguments.device)
    sizes = Sizes(arguments.device, arguments.tiny)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = write_random_cache(folder / "cache", sizes.frames)
        figures["step"] = step_figures(cache, folder, device, sizes)
        figures["from_disk"] = disk_figures(folder, device, sizes)
        figures["from_images"] = image_figures(cache, folder, device, sizes)
        if device.type == "cuda":  # last: a graph of this size takes minutes to compile
            figures["compiled"] = {}
            for kind, changes in COMPILED.items():
                save(arguments, "train", figures, REDUCED, whole=False)
                figures["compiled"][kind] = compiled_figures(cache, folder, device, sizes, changes)
    save(arguments, "train", figures, REDUCED)


def trainer_for(
    cache: FeatureCache, folder: Path, device: torch.device, sizes: Sizes, **changes: Any
) -> Trainer:
    """Build a training run that is stepped from here."""
    values = {"batch_size": sizes.batch, "device": str(device), "rollout_every": 0, **changes}
    config = TrainConfig.model_validate(values)
    run = RunDirectory(folder / f"run{len(list(folder.iterdir()))}")
    return Trainer(run, cache, sizes.policy, config, None, World(), Signals())


def timed(device: torch.device, work: Callable[[], object]) -> Callable[[], float]:
    """Wait for the device before and after some work; return seconds."""

    def run() -> float:
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        return time.perf_counter() - began

    return run


def step_figures(cache: FeatureCache, folder: Path, device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Let updates from the cache and updates on a fixed batch take turns."""
    trainer = trainer_for(cache, folder, device, sizes)
    from_cache, fixed_meter = Meter(sizes.batch, World()), Meter(sizes.batch, World())
    fixed = next(trainer.batches)
    seconds = take_turns(
        {
            "from_cache": timed(device, lambda: trainer.step(from_cache)),
            "fixed_batch": timed(device, lambda: trainer.update(fixed, fixed_meter)),
        },
        sizes.rounds,
    )
    figures = from_cache.read(trainer.state.step)
    step = median(seconds["from_cache"])
    flops = flops_of(lambda: trainer.update(fixed, fixed_meter))
    peak = matrix_rate(device, torch.float32)
    return {
        "batch_size": sizes.batch,
        "step_ms": rounded(1000 * step),
        "fixed_batch_step_ms": rounded(1000 * median(seconds["fixed_batch"])),
        "over_fixed_batch": rounded(paired_ratio(seconds["from_cache"], seconds["fixed_batch"])),
        "dataloading_share": rounded(
            figures["dataloading_s"] / (figures["dataloading_s"] + figures["update_s"])
        ),
        "samples_per_s": rounded(sizes.batch / step),
        "gflop_a_step": rounded(flops / 1e9),
        "achieved_tflop_per_s": rounded(flops / step / 1e12),
        "matrix_product_float32_tflop_per_s": rounded(peak),
        "parameters": sum(p.numel() for p in trainer.state.policy.parameters()),
    }


def compiled_figures(
    cache: FeatureCache, folder: Path, device: torch.device, sizes: Sizes, changes: Mapping[str, str]
) -> dict[str, Any]:
    """Time steps from the cache under some settings, without the time that compiling takes."""
    torch.compiler.reset()
    trainer = trainer_for(cache, folder, device, sizes, **changes)
    meter = Meter(sizes.batch, World())
    began = time.perf_counter()
    for _ in range(10):  # compiling, and the graphs' own warm-up
        trainer.step(meter)
    synchronise(device)
    warm_up_s = time.perf_counter() - began

    def steps() -> None:
        for _ in range(20):
            trainer.step(meter)

    step = timed(device, steps)
    milliseconds = 1000 * median(take_turns({"step": step}, 10)["step"]) / 20
    torch.set_float32_matmul_precision("highest")
    return {
        "step_ms": rounded(milliseconds),
        "minutes_for_50000_steps": rounded(50_000 * milliseconds / 60_000),
        "first_10_steps_s": rounded(warm_up_s),
    }


def flops_of(work: Callable[[], object]) -> float:
    """Count floating-point operations, a multiplication and an addition as two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def image_figures(cache: FeatureCache, folder: Path, device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Train the same agent from the cache and, decoding and encoding every batch anew, from images.

    The images wait in memory as PNG bytes and all cores decode: kinder than a dataset on disk.
    """
    trainer = trainer_for(cache, folder, device, sizes, batch_size=sizes.image_batch)
    encoder = load_encoder(FULL, device)
    fixed = next(trainer.batches)
    horizon = sizes.policy.obs_horizon
    stored = [png(image) for image in camera_images(0, 0, 64)]
    count = sizes.image_batch * horizon * len(CAMERAS)
    meter = Meter(sizes.image_batch, World())

    def from_images() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = np.stack(list(pool.map(decode_image, (stored[k % len(stored)] for k in range(count)))))
        views = dict(zip(CAMERAS, np.split(images, len(CAMERAS)), strict=True))
        seen = {
            name: features.unflatten(0, (sizes.image_batch, horizon))
            for name, features in encoder.encode(views).items()
        }
        trainer.update(replace(fixed, observation={**fixed.observation, **seen}), meter)

    seconds = take_turns(
        {
            "from_cache": timed(device, lambda: trainer.step(meter)),
            "from_images": timed(device, from_images),
        },
        sizes.image_rounds,
    )
    return {
        "encoder": FULL,
        "batch_size": sizes.image_batch,
        "samples_per_s_from_cache": rounded(sizes.image_batch / median(seconds["from_cache"])),
        "samples_per_s_from_images": rounded(sizes.image_batch / median(seconds["from_images"])),
        "factor": rounded(paired_ratio(seconds["from_images"], seconds["from_cache"])),
    }


def disk_figures(folder: Path, device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Let a run whose cache is in memory and one that may hold nothing of it take turns.

    Before every step all pages of the mapped files are given back, so that each row comes from the disk:
    harder than a cache that is larger than the memory, of which a part would stay.
    """
    cache = write_random_cache(folder / "large", sizes.disk_frames)
    in_memory = trainer_for(cache, folder, device, sizes, max_cache_gib=1e6)
    mapped = FeatureCache(cache.folder)
    from_disk = trainer_for(mapped, folder, device, sizes, max_cache_gib=1e-9)
    meters = [Meter(sizes.batch, World()) for _ in range(2)]

    def cold(work: Callable[[], object]) -> Callable[[], float]:
        timed_work = timed(device, work)

        def run() -> float:
            drop_pages(mapped.folder)
            return timed_work()

        return run

    steps = take_turns(
        {
            "in_memory": timed(device, lambda: in_memory.step(meters[0])),
            "from_disk": cold(lambda: from_disk.step(meters[1])),
        },
        sizes.rounds,
    )
    # By itself, with nothing ahead: the time that prefetching hides.
    ahead = from_disk.load(range(from_disk.state.step + 10, 10**6))
    loads = take_turns(
        {
            "in_memory": timed(device, lambda: next(in_memory.batches)),
            "from_disk": cold(lambda: next(ahead)),
        },
        sizes.rounds,
    )
    return {
        "cache_mib": round(cache.nbytes / 2**20),
        "pages_in_memory_before_a_step": resident_bytes(mapped.folder),
        "batch_size": sizes.batch,
        "samples_per_s_in_memory": rounded(sizes.batch / median(steps["in_memory"])),
        "samples_per_s_from_disk": rounded(sizes.batch / median(steps["from_disk"])),
        "share_of_in_memory_rate": rounded(paired_ratio(steps["in_memory"], steps["from_disk"])),
        "ms_to_load_a_batch_in_memory": rounded(1000 * median(loads["in_memory"])),
        "ms_to_load_a_batch_from_disk": rounded(1000 * median(loads["from_disk"])),
    }


def mappings(folder: Path) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, resident KiB) of this process's mappings of files below a folder."""
    found: tuple[int, int] | None = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(number, 16) for number in head.split("-"))
            found = (start, end) if str(folder) in line else None
        elif found is not None and head == "Rss:":
            yield (*found, int(line.split()[1]))


def drop_pages(folder: Path) -> None:
    """Give back all memory that holds pages of the files below a folder: mapped, and cached by the kernel."""
    for start, end, _ in mappings(folder):
        advise_range(start, end - start, mmap.MADV_DONTNEED)
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_bytes(folder: Path) -> int:
    """Return how much of the mapped files is in this process's memory after dropping it."""
    drop_pages(folder)
    return 1024 * sum(kib for _, _, kib in mappings(folder))


if __name__ == "__main__":
    main()
