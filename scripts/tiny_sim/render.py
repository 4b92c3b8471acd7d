"""Render randomised scenes to disk, for `train.py`: one process a core.

    python scripts/tiny_sim/render.py --scenes 20000 --out data/tiny_sim

writes images.npy uint8 [views, 256, 256, 3] (196 kB a view) and labels.npy float32 [views, 25]; every scene
gives three views. 20,000 scenes take 12 GB.
"""

import argparse
import itertools
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
from scenes import LABELS, SIZE, SceneGenerator

from vla.base.progress import Progress


def render(out: Path, worker: int, first: int, count: int, seed: int, nominal: float) -> None:
    """Fill the views of some scenes."""
    images = np.load(out / "images.npy", mmap_mode="r+")
    labels = np.load(out / "labels.npy", mmap_mode="r+")
    generator = SceneGenerator(seed + worker, nominal=nominal)
    progress = Progress(f"render {worker}", count, unit="scenes")
    scenes = generator.scenes()
    for index in range(first, first + count):
        scene = next(scenes)
        for view, camera in enumerate(scene.images):
            images[3 * index + view] = scene.images[camera]
            labels[3 * index + view] = scene.labels[camera]
        progress.update()
    images.flush()
    labels.flush()
    generator.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=10_000)
    parser.add_argument("--nominal", type=float, default=0.2, help="share of scenes with the nominal look")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("data/tiny_sim"))
    arguments = parser.parse_args()
    out, views = arguments.out, 3 * arguments.scenes
    out.mkdir(parents=True)
    np.lib.format.open_memmap(out / "images.npy", "w+", np.uint8, (views, SIZE, SIZE, 3)).flush()
    np.lib.format.open_memmap(out / "labels.npy", "w+", np.float32, (views, LABELS)).flush()
    started = time.monotonic()
    borders = np.linspace(0, arguments.scenes, arguments.workers + 1).astype(int).tolist()
    os.environ["LP_NUM_THREADS"] = "0"  # one process a core; the renderer's own threads get in the way
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=render, args=(out, i, first, last - first, arguments.seed, arguments.nominal))
        for i, (first, last) in enumerate(itertools.pairwise(borders))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker failed")
    print(f"{arguments.scenes} scenes in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
