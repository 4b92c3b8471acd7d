"""`vla compact`: many parts become one, with the bytes of what was made at once."""

from pathlib import Path

import pytest
from fake_faults import digests, flip_bit
from fake_growth import count_images, demos, kill_at_shard, run, same_values

from vla.base.errors import CacheError
from vla.cache import CacheConfig, FeatureCache
from vla.cache.cache_damage import cache_problems
from vla.cache.compact import compact
from vla.embed import DatasetConfig, SiglipConfig, embed
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.train import train
from vla.policy.training.train_config import TrainConfig


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


def killed_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, str]]:
    """Return a cache of two parts whose compaction was killed, and the digests of its files before."""
    for count in (4, 6):
        cache = Path(run(demos(tmp_path / "demos", range(count)), tmp_path / "grown").cache)
    before = digests(cache)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at_shard(patch, 2)
        compact(cache)
    return cache, before


def test_compacting_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, before = killed_compaction(tmp_path, monkeypatch)
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


def test_after_a_killed_compaction_embedding_encodes_nothing_and_clears_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, before = killed_compaction(tmp_path, monkeypatch)
    assert digests(cache) != before
    images = count_images(monkeypatch)
    run(tmp_path / "demos", tmp_path / "grown")
    assert images == [] and digests(cache) == before and cache_problems(cache) == []


def test_a_damaged_cache_is_not_compacted_and_not_changed(tmp_path: Path) -> None:
    for count in (4, 6):
        cache = Path(run(demos(tmp_path / "demos", range(count)), tmp_path / "grown").cache)
    flip_bit(FeatureCache(cache).files()[-1])
    before = digests(cache)
    with pytest.raises(CacheError, match=r"has other bytes than cache\.json promises"):
        compact(cache)
    assert digests(cache) == before
