"""What can be read off a LEWM encoder by a linear map? Where the box and both grippers are.

    python benchmarks/lewm_probe.py runs/lewm_demo

Beside it stand the small encoder that comes with vla, the same with random weights, images of 16 x 16, and a
constant. Scenes look as in demonstrations, from episodes that no training saw; ridge regression on
standardised features, its penalty chosen on a part of the training scenes. Prints errors on held-out scenes
[mm] and writes them to benchmarks/results/lewm_probe.json.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from machine import machine

from vla.base.files import write_json
from vla.base.progress import Progress
from vla.rollout.worlds.sim_transfer.world import CAMERAS

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts/tiny_sim"))
from probe import encode, read_off, shrink
from scenes import SceneGenerator

THINGS = ("box", "left gripper", "right gripper")


def render(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 views [n, 3, 256, 256, 3], and positions of box and grippers [n, 9] in metres.

    All in the frame of one fixed camera: distances are those of the world.
    """
    generator = SceneGenerator(seed, randomise=False)
    images, positions = [], []
    scenes = generator.scenes()
    with Progress(f"render, seed {seed}", count, unit="scenes") as progress:
        for _ in range(count):
            scene = next(scenes)
            images.append(np.stack([scene.images[camera] for camera in CAMERAS]))
            positions.append(scene.labels["front"][:9])
            progress.update()
    generator.close()
    return np.stack(images), np.stack(positions).astype(np.float32)


def errors(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return distances of each thing from where it is [mm]."""
    missed = np.linalg.norm((found - truth).reshape(-1, 3, 3), axis=2)
    return {
        f"{thing}, {part}": round(1000 * float(np.percentile(missed[:, k], q)), 1)
        for k, thing in enumerate(THINGS)
        for part, q in (("median", 50), ("90th percentile", 90))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("encoders", nargs="+", help="runs of vla pretrain lewm, or any other encoders")
    parser.add_argument("--train", type=int, default=4000, help="scenes")
    parser.add_argument("--test", type=int, default=1000, help="scenes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lewm_probe.json"))
    arguments = parser.parse_args()
    images, positions = render(20_000, arguments.train)
    unseen, truth = render(30_000, arguments.test)
    rows = {"a constant": errors(np.broadcast_to(positions.mean(0), truth.shape), truth)}
    rows["images of 16 x 16"] = errors(read_off(shrink(images), positions, shrink(unseen)), truth)
    for name in (*arguments.encoders, "siglip2-tiny-sim", "siglip2-tiny-random"):
        rows[name] = errors(read_off(encode(name, images), positions, encode(name, unseen)), truth)
    for name, figures in rows.items():
        print(f"{name:24}", "  ".join(f"{key} {value:6.1f} mm" for key, value in figures.items()))
    write_json(
        arguments.out,
        {
            "command": " ".join(["python", *sys.argv]),
            "machine": machine(),
            "scenes": {"train": len(images), "test": len(truth)},
            "error_mm": rows,
        },
    )


if __name__ == "__main__":
    main()
