"""How far features and losses move with what should not matter: batch size, threads, arithmetic.

    python benchmarks/tolerance.py                                 the encoder that comes with vla
    python benchmarks/tolerance.py --encoder DIR --device cuda     another one, on a GPU

Differences of features are root mean squares of a vector's difference: in standard deviations of the
features, and as a share of the vector's own root mean square; the largest of all vectors. They come after
the rounding to float16 that a cache has. Results go to benchmarks/results/tolerance.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from torch.nn.functional import interpolate

from vla.embed import ENCODERS, EncoderConfig, FrozenEncoder
from vla.embed.reencode import TOLERANCE

RESULTS = Path(__file__).parent / "results/tolerance.json"
SMALL = ("policy.cond_dim=128", "policy.n_emb=128", "policy.n_layer=4", "policy.n_head=4")
TRAIN = ("train.device=cpu", "train.steps=40", "train.batch_size=64", "train.log_every=1")
QUIET = ("train.val_episodes=1", "train.val_every=40", "train.save_every=40", "train.rollout_every=0")


def images(count: int, size: int = 64) -> np.ndarray:
    """Return smooth random images: flat noise would all look alike to an encoder."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    fine = interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return (fine * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def encode(config: EncoderConfig, threads: int) -> np.ndarray:
    torch.set_num_threads(threads)
    encoded = FrozenEncoder.load(config, ("view",)).encode({"view": images(48)})["view"]
    return encoded.cpu().numpy().astype(np.float64)


def differences(base: EncoderConfig) -> list[dict[str, Any]]:
    """Encode the same images in several ways; compare each with batches of 16 on one thread."""
    rows = []
    full = encode(base.model_copy(update={"dtype": "float32", "batch_size": 16}), 1)
    std = float(np.sqrt(np.mean(full.std(axis=(0, 1)) ** 2)))
    for dtype in TOLERANCE:
        reference = encode(base.model_copy(update={"dtype": dtype, "batch_size": 16}), 1)
        ways = [("batch 1", reference, 1, 1), ("batch 5", reference, 5, 1), ("batch 48", reference, 48, 1)]
        ways += [("2 threads", reference, 16, 2)]
        ways += [("against float32", full, 16, 1)] if dtype != "float32" else []
        for what, other, batch_size, threads in ways:
            found = encode(base.model_copy(update={"dtype": dtype, "batch_size": batch_size}), threads)
            off = rms(found - other)
            spread, rounding = TOLERANCE[dtype]
            figures = {
                "in_std": float((off / std).max()),
                "of_own_size": float((off / rms(other)).max()),
                "share_of_allowed": float((off / (spread * std + rounding * rms(other))).max()),
            }
            print(f"{dtype:9} {what:16}", *(f"{name} {value:.2e}" for name, value in figures.items()))
            rows.append({"dtype": dtype, "what": what, **figures})
    return rows


def rms(values: np.ndarray) -> np.ndarray:
    """Return the root mean square of each vector."""
    return np.asarray(np.sqrt(np.mean(values**2, axis=-1)))


def losses(cache: Path, out: Path, threads: int) -> np.ndarray:
    """Train 40 steps in a process with so many threads; return the losses."""
    settings = [f"--set={setting}" for setting in (*SMALL, *TRAIN, *QUIET)]
    command = [sys.executable, "-m", "vla", "train", "--cache", str(cache), "--encoder", "fake-encoder"]
    place = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": str(threads)}
    place["OMP_WAIT_POLICY"] = "passive"  # on a busy machine threads that spin hold up those that work
    subprocess.run(
        [*command, "--out", str(out), *settings],
        check=True,
        cwd=out.parent,
        env={**os.environ, **place},
        stdout=subprocess.DEVNULL,
    )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return np.array([row["loss"] for row in rows if row["kind"] == "train"])


def training() -> dict[str, Any]:
    """Compare losses of one, two, and again one thread."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from fakes import fake_spec, write_cache

    with tempfile.TemporaryDirectory() as folder:
        cache = write_cache(Path(folder) / "cache", fake_spec(lengths=(40, 40, 40))).folder
        one, two, again = (
            losses(cache.parent, Path(folder) / name, threads)
            for name, threads in (("one", 1), ("two", 2), ("again", 1))
        )
    off = np.abs(two / one - 1)
    row = {
        "same_threads_largest": float(np.abs(again / one - 1).max()),
        "two_threads_first_step": float(off[0]),
        "two_threads_step_10": float(off[:10].max()),
        "two_threads_step_40": float(off.max()),
    }
    print("losses, relative:", json.dumps(row))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="siglip2-tiny-random")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    base = ENCODERS.parse({"id": chosen.encoder, "device": chosen.device})
    found = {
        "encoder": chosen.encoder,
        "device": chosen.device,
        "features": differences(base),
        "losses": training(),
        "machine": machine(),
    }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
