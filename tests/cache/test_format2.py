"""A cache that the vla before parts wrote (tests/cache/format2) is read as it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_faults import flip_bit
from safetensors.numpy import load_file

from vla.base.errors import CacheError
from vla.cache import FeatureCache, version2
from vla.cache.cache_damage import cache_problems

OLD = Path(__file__).parent / "format2"


def test_values_are_those_of_the_old_shards() -> None:
    cache = FeatureCache(OLD)
    shards = [load_file(OLD / f"shards/0000{k}.safetensors") for k in range(2)]
    for name in ("top", "state", "action"):
        whole = np.concatenate([shard[name] for shard in shards])
        assert np.array_equal(cache.all(name).numpy(), whole)
        rows = cache.rows(name, torch.tensor([6, 0, 5])).numpy()
        assert np.array_equal(rows, (whole[:, 0] if name == "top" else whole)[[6, 0, 5]])
    assert torch.equal(cache.text_features(), torch.ones(1, 4))
    cache.require_checksums()


def test_its_header_says_what_it_said() -> None:
    metadata = FeatureCache(OLD).metadata
    assert (metadata.format_version, metadata.num_frames, metadata.variants) == (2, 7, 2)
    assert [(e.index, e.length, e.first_frame) for e in metadata.episodes] == [(0, 4, 0), (1, 3, 4)]
    assert (
        version2.fingerprint(metadata.dataset, metadata.streams, metadata.augmentation)
        == metadata.fingerprint
    )


def test_a_whole_old_cache_has_no_problems() -> None:
    assert cache_problems(OLD) == []


def change(folder: Path, key: str, value: object) -> None:
    path = folder / "cache.json"
    header = json.loads(path.read_bytes())
    header[key] = value if key != "episodes" else [header["episodes"][0], {**header["episodes"][1], **value}]  # type: ignore[dict-item]
    path.write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("episodes", {"first_frame": 3}, "starts episode 1 at frame 3, not 4"),
        ("episodes", {"length": 2}, "has episodes of 6 frames together, num_frames says 7"),
        ("frames_per_shard", 5, "lists shard 0 as .* with 4 frames, not 5"),
        ("fingerprint", "0" * 12, "has fingerprint 000000000000"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    key: str, value: object, message: str, tmp_path: Path
) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    change(tmp_path / "old", key, value)
    with pytest.raises(CacheError, match=message):
        FeatureCache(tmp_path / "old")


def test_damage_of_an_old_shard_is_found(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    flip_bit(tmp_path / "old/shards/00001.safetensors")
    (problem,) = cache_problems(tmp_path / "old")
    assert "has other bytes than cache.json promises" in str(problem)
