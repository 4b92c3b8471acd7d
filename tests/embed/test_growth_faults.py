"""Kills and damage while a cache grows."""

from pathlib import Path

import pytest
from fake_faults import digests, flip_bit
from fake_growth import count_images, demos, frames_of, kill_at_shard, run, same_values

from vla.cache import FeatureCache
from vla.cache.cache_damage import cache_problems
from vla.cache.compact import compact


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the images of each forward pass."""
    return count_images(monkeypatch)


def test_a_part_that_a_kill_left_unfinished_is_finished_though_the_dataset_has_grown_on(
    tmp_path: Path, images: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(demos(tmp_path / "demos", range(4)), tmp_path / "out")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at_shard(patch, 1)
        run(demos(tmp_path / "demos", range(7)), tmp_path / "out")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    report = run(demos(tmp_path / "demos", range(9)), tmp_path / "out")
    assert (report.parts, report.episodes_new) == (3, 2)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert cache_problems(Path(report.cache)) == []
    once = run(tmp_path / "demos", tmp_path / "once")
    assert same_values(FeatureCache(report.cache), FeatureCache(once.cache))


def test_a_damaged_shard_of_a_part_is_mended_and_nothing_else_is_touched(tmp_path: Path) -> None:
    run(demos(tmp_path / "demos", range(5)), tmp_path / "out")
    cache = Path(run(demos(tmp_path / "demos", range(8)), tmp_path / "out").cache)
    before, shard = digests(cache), FeatureCache(cache).files()[-1]
    stamps = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    flip_bit(shard)
    assert run(tmp_path / "demos", tmp_path / "out").shards_encoded == 1
    assert digests(cache) == before
    assert {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp} == {shard}


def test_damage_that_the_dataset_cannot_mend_costs_the_episodes_of_that_part(tmp_path: Path) -> None:
    cache = run(demos(tmp_path / "demos", range(4)), tmp_path / "out").cache
    flip_bit(FeatureCache(cache).files()[0])  # of episodes 0 and 1
    report = run(demos(tmp_path / "demos", [1, 2, 3]), tmp_path / "out")
    assert report.episodes_new == 3
    once = run(tmp_path / "demos", tmp_path / "once")
    assert same_values(FeatureCache(report.cache), FeatureCache(once.cache))


def test_a_part_that_is_linked_is_not_touched_when_its_copy_is_mended(
    tmp_path: Path, images: list[int]
) -> None:
    first = Path(run(demos(tmp_path / "demos", range(6)), tmp_path / "out").cache)
    other = Path(run(demos(tmp_path / "packed", range(6), per_file=2), tmp_path / "out").cache)
    images.clear()
    FeatureCache(other).files()[0].unlink()
    before = digests(first)
    assert run(tmp_path / "packed", tmp_path / "out").shards_encoded == 1
    assert digests(first) == before and cache_problems(other) == []
    assert sum(images) >= frames_of([0]) * 4


@pytest.mark.parametrize("again", ["embed", "compact"])
def test_what_a_kill_left_half_written_goes_though_nothing_else_is_to_be_done(
    again: str, tmp_path: Path
) -> None:
    cache = Path(run(demos(tmp_path / "demos", range(4)), tmp_path / "out").cache)
    before = digests(cache)
    (part,) = (cache / "parts").iterdir()
    places = [cache / "episodes-0123456789ab.parquet", cache / ".cache.json.1.tmp"]
    if again == "embed":
        places += [part / ".part.json.1.tmp", part / "shards/.00000.safetensors.1.tmp"]
        places += [cache / "parts/0123456789ab.linking/part.json"]
    for path in places:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    if again == "embed":
        run(tmp_path / "demos", tmp_path / "out")
    else:
        compact(cache)
    assert digests(cache) == before and not list(cache.glob("parts/*.linking"))
