"""Errors of a cache say what is wrong; the commands add what helps."""

import shlex
from pathlib import Path

import pytest
from fakes import fake_frames, fake_spec, shard_file, write_cache

from vla.advice import advise, advised, repair_command
from vla.base.errors import CacheError
from vla.cache import CacheWriter, FeatureCache


def advice(folder: Path) -> list[str]:
    with pytest.raises(CacheError) as caught:
        FeatureCache(folder)
    return shlex.split(advise(caught.value).partition("; ")[2])


def test_a_path_with_a_space_is_quoted_in_commands(tmp_path: Path) -> None:
    folder = tmp_path / "my features"
    make = ["make", "one:", "vla", "embed", "--dataset", "DIR", "--out", str(folder)]
    assert advice(folder) == make
    folder.mkdir()
    assert advice(folder) == make
    for name in "ab":
        write_cache(folder / name)
    assert advice(folder) == ["name", "one:", "--cache", str(folder / "a")]


def test_an_unfinished_cache_goes_on_by_the_same_command(tmp_path: Path) -> None:
    CacheWriter(tmp_path, fake_spec()).write(0, fake_frames(fake_spec(), 0))
    assert " ".join(advice(tmp_path)) == "run the same `vla embed` again, it goes on"


def test_damage_is_mended_by_the_settings_beside_the_cache(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "demo-abc")
    assert repair_command(cache.folder) == "vla embed"
    (cache.folder / "pipeline.toml").touch()
    made_by = ["--config", str(cache.folder / "pipeline.toml"), "--out", str(tmp_path)]
    assert shlex.split(repair_command(cache.folder)) == ["vla", "embed", *made_by]
    shard_file(cache.folder, 1).unlink()
    with pytest.raises(
        CacheError, match=r"00001.* is missing; mend it, only damaged shards .*: vla embed --config"
    ):
        advised(FeatureCache.all)(cache, "state")


def test_an_error_without_a_remedy_stays_as_it_is() -> None:
    assert advise(CacheError("it is what it is")) == "it is what it is"
