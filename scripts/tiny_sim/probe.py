"""What can be read off pooled features by a linear map? Where the box is, and where from the hands.

    PYTHONPATH=benchmarks python scripts/tiny_sim/probe.py

Scenes look as in demonstrations, from episodes that no training saw. Features of the three views side by
side, standardised, ridge regression; the penalty is chosen on a part of the training scenes. Beside the
encoders stands a baseline without one: the three images shrunk to 16 x 16. Prints errors on held-out
episodes [mm] and writes them to benchmarks/results/probe.json.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from machine import machine
from scenes import SceneGenerator
from torch.nn import functional

from vla.base.files import write_json
from vla.base.progress import Progress
from vla.embed import ENCODERS, FrozenEncoder
from vla.rollout.worlds.sim_transfer.world import CAMERAS

Features = Float32[np.ndarray, "n features"]
PENALTIES = 10.0 ** np.arange(-3, 6)


def render(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 views [n, 3, 256, 256, 3], and box and two offsets [n, 9] in metres.

    All in the frame of one fixed camera: distances are those of the world.
    """
    generator = SceneGenerator(seed, randomise=False)
    images, labels = [], []
    scenes = generator.scenes()
    with Progress(f"render, seed {seed}", count, unit="scenes") as progress:
        for _ in range(count):
            scene = next(scenes)
            images.append(np.stack([scene.images[camera] for camera in CAMERAS]))
            labels.append(np.concatenate([scene.labels["front"][:3], scene.labels["front"][9:15]]))
            progress.update()
    generator.close()
    return np.stack(images), np.stack(labels).astype(np.float32)


def encode(name: str, images: np.ndarray) -> Features:
    """Return what an encoder says of the three views, side by side."""
    encoder = FrozenEncoder.load(ENCODERS.parse({"id": name}), CAMERAS)
    found = []
    with Progress(f"encode, {name}", len(images), unit="scenes") as progress:
        for start in range(0, len(images), 16):
            batch = images[start : start + 16]
            features = encoder.encode({camera: batch[:, k] for k, camera in enumerate(CAMERAS)})
            views = torch.cat([features[stream.name].flatten(1) for stream in encoder.writes], dim=1)
            found.append(views.float().cpu().numpy())
            progress.update(len(batch))
    return np.concatenate(found)


def shrink(images: np.ndarray) -> Features:
    """Return the three views at 16 x 16 pixels."""
    found = []
    for start in range(0, len(images), 64):
        batch = torch.from_numpy(images[start : start + 64]).flatten(0, 1).permute(0, 3, 1, 2).float()
        small = functional.interpolate(batch, (16, 16), mode="area")
        found.append(small.reshape(len(images[start : start + 64]), -1).numpy())
    return np.concatenate(found)


def ridge(features: Features, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Return weights [features + 1, labels]; the last row, the constant, is not penalised."""
    ones = np.column_stack([features, np.ones(len(features), np.float32)]).astype(np.float64)
    gram = ones.T @ ones
    gram[np.diag_indices(len(gram) - 1)] += penalty
    return np.linalg.solve(gram, ones.T @ labels)


def predict(features: Features, weights: np.ndarray) -> np.ndarray:
    """Apply what `ridge` found."""
    return features @ weights[:-1] + weights[-1]


def errors(found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return median distances [mm]; the offset is the one of the hand that is nearer to the box."""
    box = np.linalg.norm(found[:, :3] - labels[:, :3], axis=1)
    offsets = labels[:, 3:].reshape(-1, 2, 3)
    missed = np.linalg.norm(found[:, 3:].reshape(-1, 2, 3) - offsets, axis=2)
    nearer = np.linalg.norm(offsets, axis=2).argmin(axis=1)
    offset = missed[np.arange(len(missed)), nearer]
    figures = {"box": box, "gripper to box": offset}
    return {
        f"{name}, {part}": round(1000 * float(np.percentile(values, q)), 1)
        for name, values in figures.items()
        for part, q in (("median", 50), ("90th percentile", 90))
    }


def read_off(train: Features, labels: np.ndarray, test: Features) -> np.ndarray:
    """Fit on training scenes, and return what is found on others."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / std, (test - mean) / std
    border = int(0.8 * len(train))

    def missed(penalty: float) -> float:
        found = predict(train[border:], ridge(train[:border], labels[:border], penalty))
        return float(np.square(found - labels[border:]).mean())

    return predict(test, ridge(train, labels, min(PENALTIES, key=missed)))


def probe(train: Features, labels: np.ndarray, test: Features, truth: np.ndarray) -> dict[str, float]:
    """Fit on training scenes, measure on held-out ones."""
    return errors(read_off(train, labels, test), truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--encoders", nargs="*", default=["siglip2-tiny-sim", "siglip2-tiny-random"])
    parser.add_argument("--train", type=int, default=4000, help="scenes")
    parser.add_argument("--test", type=int, default=1000, help="scenes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/probe.json"))
    arguments = parser.parse_args()
    images, labels = render(20_000, arguments.train)
    test_images, truth = render(30_000, arguments.test)
    constant = np.broadcast_to(labels.mean(0), truth.shape)
    rows = {"a constant": errors(constant, truth)}
    rows["images of 16 x 16"] = probe(shrink(images), labels, shrink(test_images), truth)
    for name in arguments.encoders:
        rows[name] = probe(encode(name, images), labels, encode(name, test_images), truth)
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
