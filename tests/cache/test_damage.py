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
from fakes import fake_frames, fake_identity, fake_spec, reseal, shard_file, write_cache
from safetensors.numpy import load_file, save_file

from vla.base.errors import CacheError, VlaError
from vla.cache import CacheWriter, FeatureCache
from vla.cache import reader as cache_reader
from vla.cache.cache_damage import cache_problems
from vla.cache.manifest import COLUMNS
from vla.cache.tables import read_table, table_bytes

MADE_BY = fake_identity().digest


def edit_part(folder: Path, **changes: Any) -> None:
    """Change entries of the only part's `part.json`."""
    _edit(next(folder.glob("parts/*/part.json")), changes)


def edit(folder: Path, **changes: Any) -> None:
    """Change entries of `cache.json`; dotted by double underscores."""
    _edit(folder / "cache.json", changes)


def _edit(path: Path, changes: dict[str, Any]) -> None:
    header = json.loads(path.read_bytes())
    for name, value in changes.items():
        *parents, key = name.split("__")
        place = header
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place[parent]
        place[int(key) if isinstance(place, list) else key] = value
    path.write_text(json.dumps(header))


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change the second shard's tensors as another writer would, header and checksum included."""
    path = shard_file(folder, 1)
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    raw = path.read_bytes()
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    change(tensors)
    save_file(tensors, path, metadata=metadata)
    reseal(folder)


def change_episodes(folder: Path, **columns: list[int]) -> None:
    """Change columns of the table of episodes, its name and checksum included."""
    header = json.loads((folder / "cache.json").read_bytes())
    path = folder / header["episodes"]["file"]
    table, _ = read_table(path, COLUMNS)
    changed = {name: np.array(values, table[name].dtype) for name, values in columns.items()}
    data = table_bytes(table | changed)
    sha256 = hashlib.sha256(data).hexdigest()
    (folder / f"episodes-{sha256[:12]}.parquet").write_bytes(data)
    edit(folder, episodes={"file": f"episodes-{sha256[:12]}.parquet", "sha256": sha256})


def test_a_whole_cache_has_no_problems(tmp_path: Path) -> None:
    write_cache(tmp_path)
    assert cache_problems(tmp_path) == []


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda f: flip_bit(shard_file(f, 1)),
            r"00001\.safetensors has other bytes than cache\.json promises",
        ),
        (lambda f: truncate(shard_file(f, 1)), r"00001\.safetensors is cut short or no safetensors file"),
        (lambda f: shard_file(f, 1).write_bytes(b""), r"00001\.safetensors is cut short or no safetensors"),
        (lambda f: shard_file(f, 1).unlink(), r"00001\.safetensors is missing"),
        (
            lambda f: shutil.copy(shard_file(f), shard_file(f, 1)),
            r"holds 8 frames from frame 0 on, not 8 from 8",
        ),
        (
            lambda f: edit(f, format_version=4),
            "has format version 4, this vla reads 3, 2 and 1; install",
        ),
        (lambda f: edit(f, format_version=1), "unknown key|is missing"),
        (lambda f: edit(f, fingerprint="0" * 12), "has fingerprint 000000000000, what it says of itself"),
        (lambda f: edit(f, recipe="0" * 12), "has recipe 000000000000, what it says of itself"),
        (lambda f: edit(f, dataset__content_sha256="c" * 64), "has another content than its episodes"),
        (lambda f: edit(f, **{f"encoders__{MADE_BY}__dtype": "bfloat16"}), "calls an encoder"),
        (lambda f: edit(f, encoders={}), "streams of other encoders"),
        (lambda f: change_episodes(f, first_row=[0, 13]), "episode 1 end behind the 21 frames of part"),
        (lambda f: change_episodes(f, first_row=[0, -1]), "episode 1 end behind"),
        (lambda f: change_episodes(f, length=[12, 8]), "of 20 frames together, cache.json says 2 of 21"),
        (lambda f: change_episodes(f, part=[0, 1]), "has no part or no frames for episode 1"),
        (lambda f: change_episodes(f, task=[0, 7]), "has an episode whose task cache.json does not list"),
        (lambda f: change_episodes(f, index=[4, 4]), "two episodes of the same number"),
        (lambda f: edit(f, parts__0__frames_per_shard=7), "holds 8 frames from frame 0 on, not 7"),
        (lambda f: edit(f, num_frames=10**12), "cache.json says 2 of 1000000000000"),
        (lambda f: flip_bit(next(f.glob("episodes-*"))), "has other bytes than cache.json promises"),
        (lambda f: next(f.glob("episodes-*")).unlink(), r"episodes-.*\.parquet cannot be read"),
        (lambda f: flip_bit(next(f.glob("parts/*/episodes.parquet"))), "is damaged, or another part's"),
        (lambda f: flip_bit(next(f.glob("parts/*/shards.parquet"))), r"part\.json is damaged, or another"),
        (lambda f: truncate(next(f.glob("parts/*/part.json"))), r"part\.json is damaged, or another"),
        (lambda f: edit_part(f, moments__top__mean__0=9.0), "moments of 'top' that are not those"),
        (lambda f: edit(f, statistics__state__min=[0.0]), r"has 1 values in statistics\.state\.min, not 16"),
        (lambda f: edit(f, streams__3__shape=[15]), "has recipe"),
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
        (lambda f: shard_file(f, 9).write_bytes(b""), "is not listed in cache.json"),
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
    for path in (tmp_path / "b").glob("*.*"):
        shutil.copy(path, tmp_path / "a")
    texts = "\n".join(map(str, cache_problems(tmp_path / "a")))
    assert "is not listed in cache.json" in texts
    assert f"parts/{other.metadata.parts[0].id}/episodes.parquet is damaged, or another part's" in texts


def test_values_that_are_not_finite_are_found_by_camera_episode_and_frame(tmp_path: Path) -> None:
    write_cache(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors["top"].__setitem__((5, 0, 0, 3), np.inf))
    (problem,) = cache_problems(tmp_path)
    assert "has 'top' not finite at episode 1, frame 1" in str(problem)


def test_frames_out_of_place_are_found(tmp_path: Path) -> None:
    write_cache(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors["frame_index"].__setitem__(5, 7))
    (problem,) = cache_problems(tmp_path)
    assert "has frame_index 7 where episode 1, frame 1 is due" in str(problem)


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
        shard_file(tmp_path).write_bytes(size.to_bytes(8, "little") + header)
        with pytest.raises(CacheError, match="is cut short or no safetensors file"):
            FeatureCache(cache.folder).all("state")


def test_an_enormous_header_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cache(tmp_path)
    monkeypatch.setattr(cache_reader, "MAX_HEADER_BYTES", 100)
    with pytest.raises(CacheError, match="has more than 0 MiB"):
        FeatureCache(tmp_path)


def test_a_writer_redoes_what_is_damaged_and_nothing_else(tmp_path: Path) -> None:
    write_cache(tmp_path)
    flip_bit(shard_file(tmp_path, 1))
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
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["00000.safetensors"]
    assert writer.missing_shards() == [1, 2]


def test_a_place_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    spec = fake_spec()
    refused = pytest.raises(VlaError, match=r"cannot be written \(Permission denied\)")
    with refused, read_only(tmp_path):
        CacheWriter(tmp_path, spec).write(0, fake_frames(spec, 0))
    assert not list(tmp_path.iterdir())
