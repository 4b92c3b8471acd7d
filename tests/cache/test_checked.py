"""Shards that were read and found right are not read again, unless something speaks against it."""

import os
import time
from pathlib import Path

import pytest
from fake_faults import flip_bit
from fakes import fake_spec, write_cache

from vla.base.errors import CacheError
from vla.base.files import sha256_of
from vla.cache import FeatureCache
from vla.cache.checked import CheckedShards
from vla.cache.part_writer import PartWriter

SPEC = fake_spec(lengths=(5, 4), shard_frames=3)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are hashed from now on."""
    hashed = list[str]()

    def noted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr("vla.cache.shard.sha256_of", noted)
    return hashed


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    """Return a cache of three shards that are a day old."""
    cache = write_cache(tmp_path / "features", SPEC)
    for path in cache.files():
        os.utime(path, (time.time() - 86400,) * 2)
    return cache


def missing(cache: FeatureCache) -> list[int]:
    """Look for damage, as `vla embed` does."""
    checked = CheckedShards(cache.folder.parent)
    found = PartWriter(cache.folder, SPEC.part).missing_shards(checked.wrong)
    checked.save()
    return found


def test_a_second_look_reads_nothing(cache: FeatureCache, reads: list[str]) -> None:
    assert missing(cache) == [] and len(reads) == 3
    assert missing(cache) == [] and len(reads) == 3
    os.utime(cache.files()[1])
    assert missing(cache) == [] and reads[3:] == ["00001.safetensors"]
    assert missing(cache) == [] and reads[4:] == ["00001.safetensors"]  # young


def test_a_change_is_found_and_found_again(cache: FeatureCache) -> None:
    assert missing(cache) == []
    flip_bit(cache.files()[1])
    assert missing(cache) == [1] == missing(cache)


def test_a_bit_that_flips_without_a_trace_is_found_once_somebody_has_read_it(cache: FeatureCache) -> None:
    assert missing(cache) == []
    path = cache.files()[1]
    stamp = path.stat().st_mtime_ns
    flip_bit(path)
    os.utime(path, ns=(stamp, stamp))
    assert missing(cache) == []
    with pytest.raises(CacheError, match=r"00001\.safetensors has other bytes"):
        cache.require_checksums()
    assert missing(cache) == [1]


def test_a_memory_that_is_damaged_is_none(cache: FeatureCache, reads: list[str]) -> None:
    missing(cache)
    (cache.folder.parent / ".identities/shards.parquet").write_bytes(b"damaged")
    assert missing(cache) == [] and len(reads) == 6
