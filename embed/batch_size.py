"""Choose how many images a forward pass takes on a GPU: the smallest number that is about as quick as any.

The last digits of features depend on it, so it is chosen once a cache, and written down beside the shards:
whoever goes on with an interrupted cache, and every process that shares the work, takes the same.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vla.base.files import write_json
from vla.embed.encoders.encoder import EncoderConfig
from vla.embed.frozen_encoder import FrozenEncoder

CANDIDATES = (64, 128, 256, 512, 1024)
WORTH = 1.03
"""The quickest must be quicker than a smaller one by so much."""
FEWEST_IMAGES = 100_000
"""Of a dataset, for measuring to be worth its few seconds."""
FILE = "batch_size.json"
BLOCK_FRAMES = 16


def for_large_batches(encoder: EncoderConfig) -> EncoderConfig:
    """Return how an encoder is compiled in stage one: CUDA graphs help small batches, which rollouts have.

    Before torch 2.13 they do not work in threads that Python starts either, such as the engine's.
    """
    return encoder.model_copy(update={"compile": "on"}) if encoder.compile == "graphs" else encoder


def block_frames(batch_size: int, cameras: int) -> int:
    """Return how many frames of all cameras fill a forward pass, at least 16."""
    return max(BLOCK_FRAMES, batch_size // cameras)


def settle_batch_size(encoder: FrozenEncoder, config: EncoderConfig, images: int, folder: Path) -> int:
    """Return the batch size of a cache: as configured, as written down, or measured now.

    Args:
        encoder: loaded.
        config: 0 images a pass lets this function choose.
        images: that are going to be encoded.
        folder: the cache directory.
    """
    if config.batch_size or encoder.device.type != "cuda":
        return encoder.batch_size
    path = folder / FILE
    if path.is_file():
        return int(json.loads(path.read_bytes())["batch_size"])
    if images < FEWEST_IMAGES:
        return encoder.batch_size
    with torch.compiler.set_stance("force_eager"):  # compiling five sizes would take minutes
        chosen = best_batch_size(lambda size: measured_rate(encoder, size))
    encoder.forget_passes()  # none of them has compiled anything
    write_json(path, {"batch_size": chosen, "measured_on": torch.cuda.get_device_name(encoder.device)})
    return chosen


def best_batch_size(rate: Callable[[int], float]) -> int:
    """Return the smallest of the candidates that is within 3 % of the quickest.

    Args:
        rate: images a second at a batch size; raises torch.OutOfMemoryError where it does not fit.
    """
    rates: dict[int, float] = {}
    for size in CANDIDATES:
        try:
            rates[size] = rate(size)
        except torch.OutOfMemoryError:
            break
    if not rates:
        return CANDIDATES[0]
    return next(size for size in rates if rates[size] * WORTH >= max(rates.values()))


@torch.inference_mode()
def measured_rate(encoder: FrozenEncoder, size: int, seconds: float = 0.5) -> float:
    """Return images a second of whole passes of some size, upload and download included."""
    cameras = encoder.reads if encoder.encoder.joint else encoder.reads[:1]
    frames = np.zeros((max(1, size // len(cameras)), *encoder.encoder.image_size, 3), np.uint8)
    images = dict.fromkeys(cameras, frames)

    def run() -> None:
        for result in encoder.forward(images).values():
            result.cpu()

    run()  # memory is taken, kernels are chosen
    passes, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        run()
        passes += 1
    return passes * size / (time.perf_counter() - began)
