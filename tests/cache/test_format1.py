"""A cache that the vla before streams wrote (tests/cache/format1) is read as it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from vla.base.errors import CacheError
from vla.cache import FeatureCache, Stream, version1
from vla.cache.cache_damage import cache_problems

OLD = Path(__file__).parent / "format1"


def test_streams_are_those_of_the_old_header() -> None:
    metadata = FeatureCache(OLD).metadata
    made_by = metadata.encoder.digest if metadata.encoder else ""
    assert metadata.streams == (
        Stream(name="top", kind="tokens", dtype="float16", shape=(1, 4), made_by=made_by),
        Stream(name="front", kind="tokens", dtype="float16", shape=(1, 4), made_by=made_by),
        Stream(name="state", kind="vector", dtype="float32", shape=(3,), key="observation.state"),
        Stream(name="action", kind="vector", dtype="float32", shape=(2,), key="action"),
    )
    assert (metadata.num_frames, metadata.variants, metadata.format_version) == (7, 1, 1)
    assert metadata.encoder is not None and metadata.encoder.settings["pooling"] == "pooled"
    assert metadata.dataset.keys["top"] == "observation.images.top"


def test_values_are_those_of_the_old_shards() -> None:
    cache = FeatureCache(OLD)
    shards = [load_file(OLD / f"shards/0000{k}.safetensors") for k in range(2)]
    for name, tensor in (("top", "features.top"), ("state", "state"), ("action", "action")):
        whole = np.concatenate([shard[tensor] for shard in shards])
        assert np.array_equal(cache.all(name).numpy(), whole)
        rows = cache.rows(name, torch.tensor([6, 0, 5])).numpy()
        assert np.array_equal(rows, (whole[:, 0] if name == "top" else whole)[[6, 0, 5]])
    assert torch.equal(cache.text_features(), torch.ones(1, 4))


def test_a_whole_old_cache_has_no_problems() -> None:
    assert cache_problems(OLD) == []


def test_its_fingerprint_is_the_one_that_format_1_gave_it() -> None:
    metadata = FeatureCache(OLD).metadata
    assert metadata.encoder is not None
    cameras, augmentation = metadata.encoded, metadata.augmentation
    due = version1.fingerprint(metadata.dataset, metadata.encoder, cameras, augmentation)
    assert metadata.fingerprint == due


def test_damage_of_an_old_cache_is_found(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    path = tmp_path / "old/cache.json"
    header = json.loads(path.read_bytes())
    path.write_text(json.dumps({**header, "encoder": {**header["encoder"], "dtype": "bfloat16"}}))
    with pytest.raises(CacheError, match="has fingerprint"):
        FeatureCache(tmp_path / "old")
