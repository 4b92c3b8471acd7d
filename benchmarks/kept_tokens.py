"""Sixteen tokens a view: means over a grid, or over clusters of the patch tokens? How steady are they?

    python benchmarks/kept_tokens.py

The frames of docs/demo.gif through `siglip2-tiny-sim`, which knows that scene. Changes are relative to a
token's length. Prints a table; docs/decisions/0022 draws the conclusion.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from vla.embed import FrozenEncoder, SiglipConfig
from vla.embed.encoders.pooling import pool

TOKENS, SIDE = 16, 4
FILM = Path(__file__).parents[1] / "docs/demo.gif"


def features(frames: np.ndarray, dtype: str, kept: str = "patches") -> Tensor:
    config = SiglipConfig.model_validate(
        {"id": "siglip2-tiny-sim", "device": "cpu", "pool": kept, "dtype": dtype}
    )
    return FrozenEncoder.load(config, ("top",)).encode({"top": frames})["top"].float()


def cells(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means over a grid [n, 16, dim], and the number of each patch's cell."""
    side = round(patches.shape[1] ** 0.5)
    where = torch.arange(side) * SIDE // side
    return pool(patches, f"grid{SIDE}"), (where[:, None] * SIDE + where).flatten().expand(len(patches), -1)


def clusters(patches: Tensor, rounds: int = 20) -> tuple[Tensor, Tensor]:
    """Return the means of clusters of each frame by Lloyd's algorithm; nothing about it is random.

    It starts with the token that is nearest to the mean and those that are farthest from all before.
    Clusters are in the order of their first patches.
    """
    found, labels = [], []
    for tokens in patches:
        chosen = [int((tokens - tokens.mean(0)).norm(dim=1).argmin())]
        distance = (tokens - tokens[chosen[0]]).norm(dim=1)
        for _ in range(TOKENS - 1):
            chosen.append(int(distance.argmax()))
            distance = torch.minimum(distance, (tokens - tokens[chosen[-1]]).norm(dim=1))
        means = tokens[chosen]
        for _ in range(rounds):
            label = torch.cdist(tokens, means).argmin(1)
            own = [tokens[label == k] for k in range(TOKENS)]
            means = torch.stack([o.mean(0) if len(o) else m for o, m in zip(own, means, strict=True)])
        first = torch.stack([(label == k).float().argmax() for k in range(TOKENS)])
        order = first.argsort(stable=True)
        found.append(means[order])
        labels.append(order.argsort()[label])
    return torch.stack(found), torch.stack(labels)


def change(before: Tensor, after: Tensor) -> Tensor:
    return (after - before).norm(dim=-1) / before.norm(dim=-1)


def describe(
    name: str, reduce: Callable[[Tensor], tuple[Tensor, Tensor]], full: Tensor, half: Tensor
) -> None:
    began = time.process_time()
    tokens, labels = reduce(full)
    ms = 1000 * (time.process_time() - began) / len(full)
    rounding, motion = change(tokens, reduce(half)[0]), change(tokens[:-1], tokens[1:])
    replaced = torch.gather(tokens, 1, labels[..., None].expand_as(full))
    kept = 1 - (full - replaced).square().sum() / (full - full.mean(1, keepdim=True)).square().sum()
    print(f"{name}: {kept:.1%} of the variance within a frame, {ms:.2g} ms a frame")
    print(f"  float32 to bfloat16: median {rounding.median():.1%}, largest {rounding.max():.1%},", end=" ")
    print(f"more than 10 %: {(rounding > 0.1).float().mean():.1%} of the tokens")
    print(f"  next frame: median {motion.median():.1%}, more than 30 %: {(motion > 0.3).float().mean():.1%}")


def main() -> None:
    torch.set_num_threads(1)
    with Image.open(FILM) as film:
        frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)])
    full, half = (features(frames, dtype) for dtype in ("float32", "bfloat16"))
    whole, rough = (features(frames, dtype, "pooled")[:, 0] for dtype in ("float32", "bfloat16"))
    cosine = torch.nn.functional.cosine_similarity(whole, rough)
    print(f"pooled, float32 to bfloat16: cosine at least {cosine.min():.5f}, median {cosine.median():.5f}")
    print(f"{len(frames)} frames, {full.shape[1]} patches, {TOKENS} tokens")
    describe("grid", cells, full, half)
    describe("clusters", clusters, full, half)


if __name__ == "__main__":
    main()
