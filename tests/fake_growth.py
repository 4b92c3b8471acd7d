"""Twelve small episodes, of which a dataset holds some, and how they are embedded in tests of growing."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import write_dataset

from vla.cache import Augmentation, CacheConfig, FeatureCache
from vla.cache.part_writer import PartWriter
from vla.embed import DatasetConfig, EmbedReport, FrozenEncoder, PixelsConfig, embed

LENGTHS = (3, 20, 4, 2, 5, 3, 4, 2, 3, 4, 6, 2)
"""Frames of the episodes; one is longer than a block of the encoder, most are shorter than a shard."""


def frames_of(episodes: Sequence[int]) -> int:
    return sum(LENGTHS[k] for k in episodes)


def demos(root: Path, episodes: Sequence[int], per_file: int = 4, **options: Any) -> Path:
    """Write some of the episodes, in this order, in place of what was there."""
    shutil.rmtree(root, ignore_errors=True)
    lengths = [LENGTHS[k] for k in episodes]
    options = {"cameras": {"top": "image", "front": "image"}, **options}
    return write_dataset(root, lengths, (16, 16), 3, episodes_per_file=per_file, shows=episodes, **options)


def run(
    dataset: Path, out: Path, *, dry_run: bool = False, variants: int = 1, **settings: Any
) -> EmbedReport:
    """Embed their frames, made small, with a variant of each."""
    return embed(
        DatasetConfig.model_validate({"path": str(dataset), **settings}),
        PixelsConfig(image_size=(8, 8), device="cpu"),
        CacheConfig(path=str(out), shard_frames=5),
        Augmentation(variants=variants),
        dry_run=dry_run,
    )


def count_images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of images of each forward pass from now on."""
    forward, counted = FrozenEncoder.forward, list[int]()

    def counting(self: FrozenEncoder, views: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        counted.append(sum(map(len, views.values())))
        return forward(self, views)

    monkeypatch.setattr(FrozenEncoder, "forward", counting)
    return counted


def kill_at_shard(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let whoever writes a shard of this number die before it is written."""
    write = PartWriter.write

    def killed(self: PartWriter, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        if shard == number:
            raise KeyboardInterrupt
        write(self, shard, arrays)

    monkeypatch.setattr(PartWriter, "write", killed)


def same_values(cache: FeatureCache, other: FeatureCache) -> bool:
    return all(torch.equal(cache.all(name), other.all(name)) for name in other.streams)
