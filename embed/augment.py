"""Variants of frames, so that caching does not cost augmentation: shifts and colours.

A variant is the same for all frames of an episode and camera: a policy sees two frames of it at a time,
and the world does not jump between them. Its parameters are functions of (seed, variant, episode, camera).
"""

import zlib

import numpy as np
from jaxtyping import Int32, UInt8

from vla.cache.metadata import Augmentation


def augment(
    frames: UInt8[np.ndarray, "n h w 3"],
    episode_index: Int32[np.ndarray, "n"],
    camera: str,
    variant: int,
    spec: Augmentation,
) -> UInt8[np.ndarray, "n h w 3"]:
    """Return one variant of some frames.

    Args:
        frames: of one camera.
        episode_index: the episode of each.
        camera: its name.
        variant: 0 is the frames themselves.
        spec: ranges and seed.
    """
    if variant == 0:
        return frames
    augmented = np.empty_like(frames)
    for episode in np.unique(episode_index):
        rows = episode_index == episode
        rng = np.random.default_rng([spec.seed, variant, int(episode), zlib.crc32(camera.encode())])
        augmented[rows] = _colour(_shift(frames[rows], rng, spec), rng, spec)
    return augmented


def _shift(frames: np.ndarray, rng: np.random.Generator, spec: Augmentation) -> np.ndarray:
    """Move the image by whole pixels; what comes in repeats the edge."""
    height, width = frames.shape[1:3]
    largest = np.round(spec.shift * np.array([height, width])).astype(int)
    down, right = rng.integers(-largest, largest + 1)
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return frames[:, rows][:, :, columns]


def _colour(frames: np.ndarray, rng: np.random.Generator, spec: Augmentation) -> np.ndarray:
    """Change contrast about mid-grey and brightness of each channel, by a table of 256 values."""
    gain = 1 + rng.uniform(-spec.gain, spec.gain, 3)
    offset = 255 * rng.uniform(-spec.offset, spec.offset, 3)
    levels = np.arange(256)[:, None]
    table = np.clip(np.round((levels - 127.5) * gain + 127.5 + offset), 0, 255).astype(np.uint8)
    return np.stack([table[:, channel][frames[..., channel]] for channel in range(3)], axis=-1)
