"""Damage of a cache: what `cache_problems` finds, what readers refuse."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_faults import file_size_limit, flip_bit, read_only, truncate
from fakes import fake_frames, fake_identity, fake_spec, write_cache
from safetensors.numpy import load_file, save_file

from vla.base.errors import CacheError, VlaError
from vla.cache import CacheWriter, FeatureCache
from vla.cache import reader as cache_reader
from vla.cache.cache_damage import cache_problems

MADE_BY = fake_identity().digest
FIRST, SECOND = "shards/00000.safetensors", "shards/00001.safetensors"


def edit(folder: Path, **changes: Any) -> None:
    """Change entries of `cache.json`; dotted by double underscores."""
    path = folder / "cache.json"
    header = json.loads(path.read_bytes())
    for name, value in changes.items():
        *parents, key = name.split("__")
        place = header
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place[parent]
        place[int(key) if isinstance(place, list) else key] = value
    path.write_text(json.dumps(header))


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object], shard: str = SECOND) -> None:
    """Change a shard's tensors as another writer would, header and checksum included."""
    path = folder / shard
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    raw = path.read_bytes()
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    change(tensors)
    save_file(tensors, path, metadata=metadata)
    number = int(Path(shard).stem)
    edit(folder, **{f"shards__{number}__sha256": hashlib.sha256(path.read_bytes()).hexdigest()})


def test_a_whole_cache_has_no_problems(tmp_path: Path) -> None:
    write_cache(tmp_path)
    assert cache_problems(tmp_path) == []


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: flip_bit(f / SECOND), r"00001\.safetensors has other bytes than cache\.json promises"),
        (lambda f: truncate(f / SECOND), r"00001\.safetensors is cut short or no safetensors file"),
        (lambda f: (f / SECOND).write_bytes(b""), r"00001\.safetensors is cut short or no safetensors"),
        (lambda f: (f / SECOND).unlink(), r"00001\.safetensors is missing"),
        (lambda f: shutil.copy(f / FIRST, f / SECOND), r"holds 8 frames from frame 0 on, not 8 from 8"),
        (
            lambda f: edit(f, format_version=3),
            "has format version 3, this vla reads 2 and 1; install",
        ),
        (lambda f: edit(f, format_version=1), r"key 'dataset\.state_key' is missing"),
        (lambda f: edit(f, fingerprint="0" * 12), "has fingerprint 000000000000, what it says of itself"),
        (lambda f: edit(f, dataset__content_sha256="c" * 64), "has fingerprint"),
        (lambda f: edit(f, **{f"encoders__{MADE_BY}__dtype": "bfloat16"}), "calls an encoder"),
        (lambda f: edit(f, encoders={}), "streams of other encoders"),
        (lambda f: edit(f, episodes__1__first_frame=11), "starts episode 1 at frame 11, not 12"),
        (lambda f: edit(f, episodes__1__length=8), "episodes of 20 frames together, num_frames says 21"),
        (lambda f: edit(f, frames_per_shard=7), "lists shard 0 as .* with 8 frames, not 7"),
        (lambda f: edit(f, num_frames=10**12), "num_frames says 1000000000000"),
        (lambda f: edit(f, statistics__state__min=[0.0]), r"has 1 values in statistics\.state\.min, not 16"),
        (lambda f: edit(f, streams__3__shape=[15]), "has fingerprint"),
        (
            lambda f: edit(f, statistics__state__mean__3=9.0),
            "statistics of 'state' that are not those of its shards",
        ),
        (
            lambda f: edit(f, statistics__top__std__0=9.0),
            "statistics of 'top' that are not those of its shards",
        ),
        (lambda f: (f / "cache.json").write_text("{"), r"cache\.json cannot be read"),
        (lambda f: (f / "cache.json").write_text("[" * 100_000), r"cache\.json cannot be read"),
        (lambda f: (f / "cache.json").write_text("[]"), "has format version None"),
        (lambda f: (f / "shards/00009.safetensors").write_bytes(b""), "is not listed in cache.json"),
    ],
)
def test_damage_is_found_and_named_with_what_to_run_next(
    tmp_path: Path, harm: Callable[[Path], object], message: str
) -> None:
    write_cache(tmp_path)
    harm(tmp_path)
    with pytest.raises(CacheError, match=message):
        raise CacheError("\n".join(map(str, problems := cache_problems(tmp_path))))
    assert all(problem.folder == tmp_path and problem.remedy for problem in problems)


def test_a_header_of_another_cache_is_found(tmp_path: Path) -> None:
    write_cache(tmp_path / "a")
    other = write_cache(tmp_path / "b", fake_spec(cameras=("top", "r_vis", "front")))
    shutil.copy(tmp_path / "b/cache.json", tmp_path / "a/cache.json")
    problems = cache_problems(tmp_path / "a")
    assert len(problems) == 3
    assert f"this one is {other.metadata.fingerprint}" in str(problems[0])


def test_values_that_are_not_finite_are_found_by_camera_episode_and_frame(tmp_path: Path) -> None:
    write_cache(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors["top"].__setitem__((5, 0, 0, 3), np.inf))
    (problem,) = cache_problems(tmp_path)
    assert "has 'top' not finite at episode 1, frame 1" in str(problem)


def test_frames_out_of_place_are_found(tmp_path: Path) -> None:
    write_cache(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors["frame_index"].__setitem__(5, 7))
    (problem,) = cache_problems(tmp_path)
    assert "has frame_index 7 where cache.json has episode 1, frame 1" in str(problem)


def test_a_shard_of_another_shape_is_refused_before_it_is_used(tmp_path: Path) -> None:
    cache = write_cache(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update(state=np.zeros((8, 3), np.float32)))
    with pytest.raises(CacheError, match=r"has 'state' as F32 \[8, 3\], not F32 \[8, 16\]"):
        FeatureCache(cache.folder).all("state")


def test_sizes_that_a_shard_claims_are_held_against_the_file(tmp_path: Path) -> None:
    cache = write_cache(tmp_path)
    claim = {"dtype": "F16", "shape": [1 << 40], "data_offsets": [0, 2 << 40]}
    header = json.dumps({"top": claim, "__metadata__": {"shard": "{}"}}).encode()
    for size in (len(header), 1 << 62):  # of the header, too
        (tmp_path / FIRST).write_bytes(size.to_bytes(8, "little") + header)
        with pytest.raises(CacheError, match="is cut short or no safetensors file"):
            FeatureCache(cache.folder).all("state")


def test_an_enormous_header_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cache(tmp_path)
    monkeypatch.setattr(cache_reader, "MAX_HEADER_BYTES", 100)
    with pytest.raises(CacheError, match="has more than 0 MiB"):
        FeatureCache(tmp_path)


def test_a_writer_redoes_what_is_damaged_and_nothing_else(tmp_path: Path) -> None:
    write_cache(tmp_path)
    flip_bit(tmp_path / SECOND)
    assert CacheWriter(tmp_path, fake_spec()).missing_shards() == [1]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    spec = fake_spec(dim=8192)
    writer = CacheWriter(tmp_path, spec)
    writer.write(0, fake_frames(spec, 0))
    full = pytest.raises(
        VlaError, match=r"cannot be written \(File too large\); finished work is kept: make room"
    )
    with full, file_size_limit(1 << 16):
        writer.write(1, fake_frames(spec, 1))
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["00000.safetensors"]
    assert writer.missing_shards() == [1, 2]


def test_a_place_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    spec = fake_spec()
    refused = pytest.raises(VlaError, match=r"00000\.safetensors cannot be written \(Permission denied\)")
    with refused, read_only(tmp_path):
        CacheWriter(tmp_path, spec).write(0, fake_frames(spec, 0))
    assert not list(tmp_path.iterdir())
