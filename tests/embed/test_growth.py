"""A dataset that grows, shrinks and is packed otherwise: what is encoded, and the cache afterwards."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_datasets import write_hdf5
from fake_faults import digests, flip_bit
from fakes import write_dataset

from vla.cache import Augmentation, CacheConfig, FeatureCache
from vla.cache.cache_damage import cache_problems
from vla.cache.compact import compact
from vla.cache.part_writer import PartWriter
from vla.embed import DatasetConfig, EmbedReport, FrozenEncoder, PixelsConfig, SiglipConfig, embed
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.train import train
from vla.policy.training.train_config import TrainConfig

LENGTHS = (3, 20, 4, 2, 5, 3, 4, 2, 3, 4, 6, 2)
"""Frames of twelve episodes; one is longer than a block of the encoder, most are shorter than a shard."""
NUMBERS = np.cumsum(LENGTHS) - LENGTHS


def demos(root: Path, episodes: Sequence[int], per_file: int = 4, **options: Any) -> Path:
    """Write some of the twelve episodes, in this order, in place of what was there."""
    shutil.rmtree(root, ignore_errors=True)
    lengths = [LENGTHS[k] for k in episodes]
    options = {"cameras": {"top": "image", "front": "image"}, **options}
    return write_dataset(root, lengths, (16, 16), 3, episodes_per_file=per_file, shows=episodes, **options)


def run(
    dataset: Path, out: Path, *, dry_run: bool = False, variants: int = 1, **settings: Any
) -> EmbedReport:
    return embed(
        DatasetConfig.model_validate({"path": str(dataset), **settings}),
        PixelsConfig(image_size=(8, 8), device="cpu"),
        CacheConfig(path=str(out), shard_frames=5),
        Augmentation(variants=variants),
        dry_run=dry_run,
    )


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of images of each forward pass."""
    forward, counted = FrozenEncoder.forward, list[int]()

    def counting(self: FrozenEncoder, views: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        counted.append(sum(map(len, views.values())))
        return forward(self, views)

    monkeypatch.setattr(FrozenEncoder, "forward", counting)
    return counted


def frames_of(episodes: Sequence[int]) -> int:
    return sum(LENGTHS[k] for k in episodes)


def same_values(cache: FeatureCache, other: FeatureCache) -> bool:
    return all(torch.equal(cache.all(name), other.all(name)) for name in other.streams)


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


def test_chosen_episodes_are_a_cache_of_their_own_and_not_encoded(tmp_path: Path, images: list[int]) -> None:
    whole = run(demos(tmp_path / "demos", range(6)), tmp_path / "out")
    images.clear()
    some = run(tmp_path / "demos", tmp_path / "out", episodes=[4, 1])
    assert images == [] and some.cache != whole.cache
    assert [episode.index for episode in FeatureCache(some.cache).metadata.episodes] == [1, 4]
    assert FeatureCache(whole.cache).metadata.fingerprint == whole.fingerprint


def test_what_has_grown_and_is_compacted_has_the_bytes_of_what_was_made_at_once(tmp_path: Path) -> None:
    for count in (3, 7, 12):
        run(demos(tmp_path / "demos", range(count)), tmp_path / "grown")
    run(demos(tmp_path / "demos", [11, *range(9)]), tmp_path / "grown")
    grown = Path(run(demos(tmp_path / "demos", [2, 11, *range(3, 10)]), tmp_path / "grown").cache)
    once = Path(run(tmp_path / "demos", tmp_path / "once").cache)
    assert digests(grown) != digests(once)
    compact(grown)
    assert digests(grown) == digests(once)
    before = {path: path.stat().st_mtime_ns for path in grown.rglob("*")}
    compact(grown)
    run(tmp_path / "demos", tmp_path / "grown")
    assert {path: path.stat().st_mtime_ns for path in grown.rglob("*")} == before


def test_compacting_goes_on_where_it_was_killed_and_refuses_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (4, 6):
        cache = Path(run(demos(tmp_path / "demos", range(count)), tmp_path / "grown").cache)
    write, before = PartWriter.write, digests(cache)

    def killed(self: PartWriter, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        write(self, shard, arrays)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PartWriter, "write", killed)
        compact(cache)
    assert before.items() <= digests(cache).items()
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    compact(cache)
    assert digests(cache) == digests(Path(run(tmp_path / "demos", tmp_path / "once").cache))
    assert sum(path.is_file() and path.stat().st_mtime_ns == stamp for path, stamp in kept.items()) == 2


def test_a_policy_trained_on_a_grown_cache_has_the_losses_of_one_made_at_once(
    tmp_path: Path, encoder_dir: Path
) -> None:
    def embedded(count: int, out: str) -> FeatureCache:
        report = embed(
            DatasetConfig(path=str(demos(tmp_path / "demos", range(count), cameras={"top": "image"}))),
            SiglipConfig(id=str(encoder_dir), device="cpu"),
            CacheConfig(path=str(tmp_path / out), shard_frames=5),
        )
        return FeatureCache(report.cache)

    def losses(cache: FeatureCache, out: str) -> list[float]:
        run = RunDirectory.create(tmp_path / out)
        small = {
            "steps": 5,
            "batch_size": 8,
            "device": "cpu",
            "val_episodes": 1,
            "log_every": 1,
            "rollout_every": 0,
        }
        policy = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)
        train(run, cache, policy, TrainConfig.model_validate(small))
        return [row["loss"] for row in read_metrics(run, "train")]

    embedded(4, "grown")
    grown, once = embedded(6, "grown"), embedded(6, "once")
    assert len(grown.metadata.parts) == 2 and same_values(grown, once)
    assert grown.metadata.fingerprint == once.metadata.fingerprint
    expected = losses(once, "run-once")
    assert losses(grown, "run-grown") == pytest.approx(expected, rel=1e-6)
    compact(grown.folder)
    assert losses(FeatureCache(grown.folder), "run-compact") == expected


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


def test_a_part_that_a_kill_left_unfinished_is_finished_though_the_dataset_has_grown_on(
    tmp_path: Path, images: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(demos(tmp_path / "demos", range(4)), tmp_path / "out")
    write = PartWriter.write

    def killed(self: PartWriter, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        if shard == 1:
            raise KeyboardInterrupt
        write(self, shard, arrays)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PartWriter, "write", killed)
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
