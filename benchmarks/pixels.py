"""How fast is training on the pixel cache, next to decoding video in the loop?

    vla record --config examples/demo.toml
    python benchmarks/pixels.py --dataset data/demo/sim_transfer

from_cache    an update on windows of the pixel cache, in memory
from_jpeg     the same of a cache that keeps JPEG files of quality 95, decoded window by window
from_video    the same update; the frames of each window are decoded from the dataset and resized
augmented     from_cache with random shifts and colours, on the training device

They take turns in one run. All cores decode; windows are random, so each one seeks in its videos.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import paired_ratio, parser, rounded, save, synchronise, take_turns

from vla.base.distributed import World
from vla.base.horizons import Horizons
from vla.base.interrupt import Signals
from vla.cache import CacheConfig, FeatureCache
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.encoders.pixels import PixelsConfig
from vla.embed.engine import embed
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.batch import Batch
from vla.policy.training.meter import Meter
from vla.policy.training.run import RunDirectory
from vla.policy.training.train_config import TrainConfig
from vla.policy.training.trainer import Trainer

REDUCED = "batch 16 instead of 128; ResNet-18 of a quarter's width; images of 96 x 96 instead of 224 x 224"
QUALITY, NO_MEMORY = 95, 1e-6
SHIFTS = {"shift": 0.05, "gain": 0.2, "offset": 0.1}


def main() -> None:
    options = parser(__doc__, "pixels")
    options.add_argument("--dataset", default="data/demo/sim_transfer")
    options.add_argument("--episodes", type=int, default=10, help="of the dataset that are cached")
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    device = torch.device(arguments.device)
    full = device.type == "cuda"
    size, width, batch = (224, 64, 128) if full else (96, 16, 16)
    if arguments.tiny:
        size, width, batch = 32, 8, 2
    dataset = DatasetConfig(path=arguments.dataset, episodes=tuple(range(arguments.episodes)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        report = embed(dataset, PixelsConfig(image_size=(size, size)), CacheConfig(path=str(folder)))
        embed_s = time.perf_counter() - began
        files = PixelsConfig(image_size=(size, size), jpeg_quality=QUALITY)
        small = FeatureCache(embed(dataset, files, CacheConfig(path=str(folder))).cache)
        cache = FeatureCache(report.cache)
        figures = measure(arguments, cache, small, open_source(dataset), folder, device, width, batch)
        mib, jpeg_mib = (rounded(on_disk(one) / 2**20) for one in (cache, small))
        figures["jpeg_error"] = rounded(error(cache, small))
    frames = {
        "embed_s": rounded(embed_s),
        "frames": cache.num_frames,
        "cache_mib": mib,
        "jpeg_mib": jpeg_mib,
    }
    save(arguments, "pixels", {"image_size": size, "width": width, **frames, **figures}, REDUCED)


def on_disk(cache: FeatureCache) -> int:
    """Return the bytes of a cache's shards."""
    return sum(path.stat().st_size for path in cache.files())


def error(cache: FeatureCache, small: FeatureCache) -> float:
    """Return how far images of JPEG files are off, in the root mean square [levels of 255]."""
    off = [small.all(name).float() - cache.all(name).float() for name in cache.metadata.encoded]
    return float(torch.stack([each.square().mean() for each in off]).mean().sqrt())


def measure(
    arguments: argparse.Namespace,
    cache: FeatureCache,
    small: FeatureCache,
    source: FrameSource,
    folder: Path,
    device: torch.device,
    width: int,
    batch: int,
) -> dict[str, Any]:
    """Let the kinds of update take turns."""
    trainers = {
        name: trainer_for(of, folder / f"run-{name}", device, width, batch, more)
        for name, of, more in (
            ("plain", cache, {}),
            ("augmented", cache, {"augment": SHIFTS}),
            ("jpeg", small, {"max_cache_gib": NO_MEMORY}),
        )
    }
    plain, meter = trainers["plain"], Meter(batch, World())
    fixed = next(plain.batches)
    random = np.random.default_rng(0)

    def timed(work: Any) -> Any:
        def run() -> float:
            synchronise(device)
            began = time.perf_counter()
            work()
            synchronise(device)
            return time.perf_counter() - began

        return run

    def from_video() -> None:
        current = random.integers(0, cache.num_frames, batch)
        plain.update(decoded(source, cache, current, plain.state.policy.horizons, fixed, device), meter)

    seconds = take_turns(
        {
            "from_cache": timed(lambda: plain.step(meter)),
            "augmented": timed(lambda: trainers["augmented"].step(meter)),
            "from_jpeg": timed(lambda: trainers["jpeg"].step(meter)),
            "from_video": timed(from_video),
        },
        1 if arguments.tiny else arguments.rounds,
    )
    return {
        "batch_size": batch,
        **{f"samples_per_s_{name}": rounded(batch / median(taken)) for name, taken in seconds.items()},
        "from_cache_over_from_video": rounded(paired_ratio(seconds["from_video"], seconds["from_cache"])),
        "jpeg_step_over_plain": rounded(paired_ratio(seconds["from_jpeg"], seconds["from_cache"])),
        "augmented_step_over_plain": rounded(paired_ratio(seconds["augmented"], seconds["from_cache"])),
    }


def trainer_for(
    cache: FeatureCache, run: Path, device: torch.device, width: int, batch: int, more: dict[str, Any]
) -> Trainer:
    """Build a training run that is stepped from here: ResNets and the head of the demo."""
    trunk = {"type": "resnet", "width": width}
    sizes = {"per_view_dim": 64, "cond_dim": 192, "n_emb": 128, "n_layer": 4, "n_head": 4}
    trunks = dict.fromkeys(cache.metadata.encoded, trunk)
    policy = VLAAgentConfig.model_validate({**sizes, "trunks": trunks})
    values = {"batch_size": batch, "device": str(device), "rollout_every": 0, **more}
    config = TrainConfig.model_validate({**values, "steps": 1000, "compile": "off"})
    return Trainer(RunDirectory(run), cache, policy, config, None, World(), Signals())


def decoded(
    source: FrameSource,
    cache: FeatureCache,
    current: np.ndarray,
    horizons: Horizons,
    like: Batch,
    device: torch.device,
) -> Batch:
    """Return a batch whose images are decoded now; its actions are those of another, which cost nothing."""
    cameras = cache.metadata.encoded
    height, width, _ = cache.metadata.stream(cameras[0]).shape
    back = horizons.obs_horizon - 1

    def window(frame: int) -> dict[str, np.ndarray]:
        wanted = range(max(0, frame - back), frame + 1)
        blocks = list(source.read(wanted, len(wanted), (height, width)))
        views = {camera: np.concatenate([block.streams[camera] for block in blocks]) for camera in cameras}
        return {camera: view[np.arange(-back - 1, 0).clip(-len(view))] for camera, view in views.items()}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        windows = list(pool.map(window, current.tolist()))
    images = {
        camera: torch.from_numpy(np.stack([one[camera] for one in windows])).to(device) for camera in cameras
    }
    return replace(like, observation={**like.observation, **images})


if __name__ == "__main__":
    main()
