"""A dataset that grows, shrinks and is packed otherwise: what is encoded, and the cache afterwards."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_datasets import write_dataset, write_hdf5
from fake_faults import digests
from fake_growth import LENGTHS, count_images, demos, frames_of, run, same_values

from vla.cache import FeatureCache
from vla.cache.cache_damage import cache_problems
from vla.cache.compact import compact
from vla.embed import EmbedReport

NUMBERS = np.cumsum(LENGTHS) - LENGTHS
"""Of the first frame of each of the twelve episodes."""


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the images of each forward pass."""
    return count_images(monkeypatch)


def test_of_a_dataset_that_has_grown_the_new_episodes_are_encoded_and_no_others(
    tmp_path: Path, images: list[int]
) -> None:
    first = run(demos(tmp_path / "demos", range(10)), tmp_path / "out")
    assert sum(images) == frames_of(range(10)) * 4  # two cameras, two variants
    images.clear()
    grown = run(demos(tmp_path / "demos", range(12)), tmp_path / "out")
    assert sum(images) == frames_of([10, 11]) * 4 == grown.images_encoded
    assert (grown.cache, grown.parts, grown.episodes_new, grown.episodes_kept) == (first.cache, 2, 2, 10)
    assert grown.fingerprint != first.fingerprint
    images.clear()
    as_it_was = run(tmp_path / "demos", tmp_path / "out", episodes=list(range(10)))
    assert (images, as_it_was.fingerprint) == ([], first.fingerprint)
    assert cache_problems(Path(grown.cache)) == []
    assert same_values(
        FeatureCache(grown.cache), FeatureCache(run(tmp_path / "demos", tmp_path / "once").cache)
    )


def test_of_a_dataset_that_has_shrunk_nothing_is_encoded_and_nothing_when_it_grows_back(
    tmp_path: Path, images: list[int]
) -> None:
    whole = FeatureCache(run(demos(tmp_path / "demos", range(6)), tmp_path / "out").cache)
    values = whole.all("top")
    images.clear()
    less = run(demos(tmp_path / "demos", [0, 2, 5]), tmp_path / "out")
    cache = FeatureCache(less.cache)
    assert (images, less.episodes_dropped, cache.num_frames) == ([], 3, frames_of([0, 2, 5]))
    kept = [k for e in (0, 2, 5) for k in range(NUMBERS[e], NUMBERS[e] + LENGTHS[e])]
    assert torch.equal(cache.all("top"), values[kept])
    assert torch.equal(cache.rows("top", torch.arange(cache.num_frames)), values[kept, 0])
    assert torch.equal(cache.frame(4)["top"], values[kept[4]])
    assert cache_problems(cache.folder) == []
    again = run(demos(tmp_path / "demos", range(6)), tmp_path / "out")
    assert (images, again.fingerprint) == ([], whole.metadata.fingerprint)
    assert FeatureCache(again.cache).metadata == whole.metadata


def test_statistics_are_those_of_the_listed_episodes_however_parts_are_cut(tmp_path: Path) -> None:
    run(demos(tmp_path / "demos", range(4)), tmp_path / "out")
    run(demos(tmp_path / "demos", range(8)), tmp_path / "out")
    grown = FeatureCache(run(demos(tmp_path / "demos", [1, 2, 5, 4, 9]), tmp_path / "out").cache)
    once = FeatureCache(run(tmp_path / "demos", tmp_path / "once").cache)
    assert len(grown.metadata.parts) == 3
    for name, found in grown.metadata.statistics.items():
        for key, values in once.metadata.statistics[name].model_dump().items():
            assert values is None or np.allclose(getattr(found, key), values, rtol=1e-12, atol=0), (name, key)
    for name in ("state", "action"):  # from all values, not merged
        assert grown.metadata.statistics[name] == once.metadata.statistics[name]


def test_a_copy_that_is_packed_and_numbered_otherwise_is_linked_and_not_encoded(
    tmp_path: Path, images: list[int]
) -> None:
    first = run(demos(tmp_path / "demos", range(6)), tmp_path / "out")
    images.clear()
    other = run(demos(tmp_path / "packed", [3, 0, 5, 1], per_file=2), tmp_path / "out")
    assert (images, other.episodes_new) == ([], 0) and other.cache != first.cache
    once = run(tmp_path / "packed", tmp_path / "once")
    assert same_values(FeatureCache(other.cache), FeatureCache(once.cache))
    assert [episode.index for episode in FeatureCache(other.cache).metadata.episodes] == [0, 1, 2, 3]
    ours = {path.name: path for path in FeatureCache(first.cache).files()}
    assert all(path.samefile(ours[path.name]) for path in FeatureCache(other.cache).files())


def test_two_datasets_that_are_merged_are_linked_and_not_encoded(tmp_path: Path, images: list[int]) -> None:
    run(demos(tmp_path / "monday", range(4)), tmp_path / "out")
    run(demos(tmp_path / "tuesday", range(4, 9)), tmp_path / "out")
    images.clear()
    merged = run(demos(tmp_path / "week", [*range(4, 9), *range(4)], per_file=9), tmp_path / "out")
    assert (images, merged.parts, merged.episodes_new) == ([], 2, 0)
    once = FeatureCache(run(tmp_path / "week", tmp_path / "once").cache)
    cache = FeatureCache(merged.cache)
    assert same_values(cache, once) and cache.metadata.fingerprint == once.metadata.fingerprint
    compact(cache.folder)
    assert digests(cache.folder) == digests(once.folder)


@pytest.mark.slow
def test_of_a_hundred_episodes_and_ten_more_the_ten_are_encoded(tmp_path: Path, images: list[int]) -> None:
    def embedded(shows: Sequence[int]) -> EmbedReport:
        shutil.rmtree(tmp_path / "demos", ignore_errors=True)
        lengths = [2 + k % 3 for k in shows]
        sizes = {"episodes_per_file": 10, "cameras": {"top": "image"}}
        write_dataset(tmp_path / "demos", lengths, (16, 16), 3, shows=shows, **sizes)  # type: ignore[arg-type]
        images.clear()
        return run(tmp_path / "demos", tmp_path / "out", variants=0)

    assert sum(2 + k % 3 for k in range(100)) == embedded(range(100)).images_encoded == sum(images)
    grown = embedded(range(110))
    assert sum(2 + k % 3 for k in range(100, 110)) == grown.images_encoded == sum(images)
    shrunk = embedded(range(10, 110))
    assert (shrunk.episodes_dropped, shrunk.images_encoded, images) == (10, 0, [])


def test_chosen_episodes_are_a_cache_of_their_own_and_not_encoded(tmp_path: Path, images: list[int]) -> None:
    whole = run(demos(tmp_path / "demos", range(6)), tmp_path / "out")
    images.clear()
    some = run(tmp_path / "demos", tmp_path / "out", episodes=[4, 1])
    assert images == [] and some.cache != whole.cache
    assert [episode.index for episode in FeatureCache(some.cache).metadata.episodes] == [1, 4]
    assert FeatureCache(whole.cache).metadata.fingerprint == whole.fingerprint


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path, images: list[int]) -> None:
    planned = run(demos(tmp_path / "demos", range(6)), tmp_path / "out", dry_run=True)
    assert (planned.episodes_new, planned.frames_encoded, planned.dry_run) == (6, frames_of(range(6)), True)
    assert not list(tmp_path.glob("out/*/*.json")) and images == []
    made = run(tmp_path / "demos", tmp_path / "out")
    assert made.images_encoded == planned.images_encoded and made.mib_encoded == planned.mib_encoded
    before = digests(Path(made.cache))
    images.clear()
    planned = run(demos(tmp_path / "demos", [0, 2, 3, 8]), tmp_path / "out", dry_run=True)
    assert (planned.episodes_new, planned.episodes_kept, planned.episodes_dropped) == (1, 3, 3)
    assert (planned.frames_encoded, images) == (LENGTHS[8], [])
    assert digests(Path(made.cache)) == before


def test_an_episode_that_is_there_twice_is_encoded_once(tmp_path: Path, images: list[int]) -> None:
    report = run(demos(tmp_path / "demos", [2, 0, 2]), tmp_path / "out")
    assert sum(images) == frames_of([2, 0]) * 4 and report.episodes == 3
    cache = FeatureCache(report.cache)
    top = cache.all("top")
    assert torch.equal(top[:4], top[-4:]) and cache.num_frames == frames_of([2, 0, 2])
    assert cache.metadata.statistics["state"].count == cache.num_frames
    assert cache_problems(cache.folder) == []
    before = digests(cache.folder)
    compact(cache.folder)
    assert digests(cache.folder) == before


def test_hdf5_episodes_are_known_under_other_numbers_and_with_other_padding(
    tmp_path: Path, images: list[int]
) -> None:
    hdf5 = {"size": (8, 8), "state_dim": 2}
    first = write_hdf5(tmp_path / "one", (3, 2), storage="strings", **hdf5)  # type: ignore[arg-type]
    run(first, tmp_path / "out", fps=50)
    images.clear()
    other = write_hdf5(tmp_path / "two", (3, 2, 4), storage="padded", numbers=(7, 2, 1), **hdf5)  # type: ignore[arg-type]
    report = run(other, tmp_path / "out", fps=50)
    assert (report.episodes_new, sum(images)) == (1, 4 * 3 * 2)
