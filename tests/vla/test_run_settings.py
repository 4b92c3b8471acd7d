"""A run's saved configuration is true: dataset, encoder, augmentation and cache are those of the opened
cache."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_language import Bench
from fakes import write_vision_checkpoint

from vla.base.errors import ConfigError
from vla.cache import FeatureCache
from vla.config import PipelineConfig, read_tables
from vla.matching import of_cache
from vla.policy.training.run import RunDirectory
from vla.saved import default_rollout_folder, policy_settings
from vla.stages import embed, load_live
from vla.stages.training import _validation_rollouts

COMMIT = "c" * 40


@pytest.fixture(scope="module")
def augmented(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Return a cache with one variant of each frame and without task texts."""
    out = tmp_path_factory.mktemp("augmented")
    settings = bench.settings(**{"augment.variants": 1, "cache.path": str(out), "encoder.language": False})
    return FeatureCache(embed(settings).cache)


def given(**options: Any) -> PipelineConfig:
    return PipelineConfig.load(None, options, [], {})


def test_what_is_not_given_is_taken_from_the_cache(bench: Bench, augmented: FeatureCache) -> None:
    settings = of_cache(given(**{"cache.path": str(augmented.folder), "encoder.device": "cpu"}), augmented)
    assert settings.dataset.path == str(bench.dataset)
    assert (settings.dataset.cameras, settings.dataset.fps) == (("top",), 25)
    assert (settings.encoder.id, settings.encoder.dtype) == (str(bench.encoder), "float32")
    assert settings.augment.variants == 1
    assert (settings.cache.path, settings.cache.shard_frames) == (str(augmented.folder), 20)
    assert settings.encoder.device == "cpu"  # where it runs is not the cache's


def test_what_is_saved_with_a_run_is_that(bench: Bench, tmp_path: Path) -> None:
    bench.train("saved", **{"train.steps": 1})
    tables = read_tables(bench.root / "saved/pipeline.toml")
    assert tables["dataset"]["path"] == str(bench.dataset)
    assert tables["cache"]["path"] == str(FeatureCache(bench.root / "features").folder)
    assert tables["encoder"]["pool"] == "pooled"


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("dataset.revision", COMMIT, "null"),
        ("dataset.cameras", ["top", "wrist"], r'\["top"\]'),
        ("dataset.streams", {"lidar": {"key": "lidar", "kind": "points"}}, r"\{\}"),
        ("dataset.state_key", "observations/qvel", "observations/qpos"),
        ("dataset.action_key", "command", "action"),
        ("dataset.episodes", [0], r"\[\]"),
        ("dataset.fps", 50, "25"),
        ("dataset.tolerance_s", 0.5, "0.0001"),
        ("dataset.color", "bgr", "rgb"),
        ("encoder.revision", COMMIT, "main"),
        ("encoder.dtype", "bfloat16", "float32"),
        ("encoder.pool", "grid2", "pooled"),
        ("augment.variants", 2, "1"),
        ("augment.shift", 0.1, "0.04"),
        ("augment.gain", 0.3, "0.2"),
        ("augment.offset", 0.3, "0.1"),
        ("augment.seed", 7, "0"),
        ("cache.shard_frames", 7, "20"),
    ],
)
def test_a_key_that_contradicts_the_cache_is_refused_by_name(
    augmented: FeatureCache, key: str, value: object, found: str
) -> None:
    table, _, name = key.partition(".")
    with pytest.raises(ConfigError, match=rf"^\[{table}\] {name} = .* was made with {found};") as caught:
        of_cache(given(**{key: value}), augmented)
    assert str(augmented.folder) in str(caught.value) and "\n" not in str(caught.value)


def test_another_encoder_and_another_dataset_are_refused_by_name(
    bench: Bench, augmented: FeatureCache, tmp_path: Path
) -> None:
    other = write_vision_checkpoint(tmp_path / "other")
    with pytest.raises(
        ConfigError, match=rf"^\[encoder\] id = {other}, but .* was made with {bench.encoder};"
    ):
        of_cache(given(**{"encoder.id": str(other)}), augmented)
    with pytest.raises(ConfigError, match=r"^\[encoder\] type = pixels, but "):
        of_cache(given(**{"encoder.id": "pixels"}), augmented)
    demos = Path(shutil.copytree(bench.dataset, tmp_path / "demos"))
    with pytest.raises(ConfigError, match=rf"^\[dataset\] path = {demos}, but "):
        of_cache(given(**{"dataset.path": str(demos)}), augmented)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset.revision", "main"),
        ("dataset.cameras", []),
        ("dataset.cameras", ["top"]),
        ("dataset.fps", 25),
        ("encoder.dtype", "auto"),
        ("encoder.batch_size", 3),
        ("encoder.compile", "on"),
        ("encoder.workers", 2),
        ("encoder.language", True),  # a policy that takes the texts says what is missing
    ],
)
def test_a_key_that_agrees_or_leaves_it_open_is_no_contradiction(
    augmented: FeatureCache, key: str, value: object
) -> None:
    of_cache(given(**{key: value}), augmented)


def test_a_place_may_be_spelled_in_several_ways(
    bench: Bench, augmented: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.dataset.parent)
    of_cache(given(**{"dataset.path": bench.dataset.name}), augmented)
    of_cache(given(**{"dataset.path": f"/elsewhere/{bench.dataset.name}"}), augmented)  # it was moved there


@pytest.mark.parametrize(
    ("options", "assignments"), [({"policy.n_emb": 8}, []), ({}, ["rollout.seed=1", "policy.n_emb = 8"])]
)
def test_what_a_policy_was_trained_with_cannot_be_set_for_its_rollouts(
    trained: tuple[Path, float], options: dict[str, Any], assignments: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"policy.n_emb is part of the trained policy and stays as it is"):
        policy_settings(trained[0], options, assignments)


def test_rollouts_at_another_temperature_have_a_folder_of_their_own(trained: tuple[Path, float]) -> None:
    settings = policy_settings(trained[0], {"rollout.temperature": 0.5})
    assert default_rollout_folder(settings, trained[0]).name.endswith("_temperature0.5")
    with pytest.raises(ConfigError, match=r"rollout.temperature = 0.5: only heads that draw tokens"):
        load_live(settings, trained[0])


def test_a_temperature_that_validation_rollouts_cannot_have_is_refused_before_training(
    bench: Bench, augmented: FeatureCache, tmp_path: Path
) -> None:
    settings = bench.settings(**{"rollout.temperature": 0.5})
    with pytest.raises(ConfigError, match=r"rollout.temperature = 0.5: only heads that draw tokens"):
        _validation_rollouts(settings, augmented, RunDirectory(tmp_path / "run"))
