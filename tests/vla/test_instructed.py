"""Episodes with an instruction each, the whole way: record, embed with MiniLM's kind, train, roll out."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_bert import write_bert

from vla import stages
from vla.base.errors import ConfigError, EncoderError
from vla.cache import FeatureCache
from vla.config import PipelineConfig
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.text_encoders.text_encoder_family import named
from vla.policy.training.run import find_policy
from vla.rollout.evaluate.evaluate import evaluate
from vla.rollout.live import LivePolicy
from vla.rollout.record.record import record
from vla.rollout.rollout_config import EnvConfig, RecordConfig
from vla.rollout.worlds.instructions.env import InstructionsEnv
from vla.rollout.worlds.instructions.world import ENV_ID

ENV = EnvConfig(id=ENV_ID)


def settings(root: Path, **changes: Any) -> PipelineConfig:
    values = {
        "env.id": ENV_ID,
        "dataset.path": str(root / "demos"),
        "encoder.type": "pixels",
        "encoder.image_size": [16, 16],
        "encoder.text_encoder": str(root / "bert"),
        "cache.path": str(root / "features"),
        "policy.language": True,
        "policy.fusion": "point",
        "policy.head": {"type": "mlp", "width": 16},
        "policy.trunks": {"top": {"type": "conv", "channels": [8], "output": "grid"}},
        "policy.per_view_dim": 8,
        "policy.cond_dim": 8,
        "train.out": str(root / "run"),
        "train.steps": 2,
        "train.batch_size": 4,
        "train.val_episodes": 0,
        "train.rollout_every": 0,
        "train.tracker": "none",
        "rollout.num_envs": 1,
        "rollout.episodes": 2,
        "rollout.videos": 0,
    }
    return PipelineConfig.load(None, {**values, **changes}, [], base={})


def recording(out: Path, episodes: int) -> RecordConfig:
    return RecordConfig(
        task="instructions", episodes=episodes, image_size=(16, 16), workers=1, out=str(out), append=True
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with demonstrations, cache and run; read it, do not change it."""
    folder = tmp_path_factory.mktemp("instructed")
    record(ENV, recording(folder / "demos", 2))
    write_bert(folder / "bert")
    stages.train(settings(folder, **{"cache.path": stages.embed(settings(folder)).cache}))
    return folder


def live(root: Path, **changes: Any) -> LivePolicy:
    return stages.load_live(settings(root, **changes), find_policy(root / "run"))


def instructions(seeds: range, wordings: str = "trained") -> list[str]:
    env = InstructionsEnv(wordings=wordings)
    env.render_observations = False
    return [env.reset(seed=seed)[1]["task"] for seed in seeds]


def test_each_recorded_episode_keeps_the_instruction_that_it_followed(root: Path) -> None:
    source = open_source(DatasetConfig(path=str(root / "demos")), workers=1)
    assert [episode.task for episode in source.episodes] == instructions(range(2))
    assert json.loads((root / "demos/meta/info.json").read_bytes())["total_tasks"] == 2


@pytest.mark.slow
def test_a_recording_that_is_continued_keeps_its_instructions(root: Path, tmp_path: Path) -> None:
    grown, whole = shutil.copytree(root / "demos", tmp_path / "grown"), tmp_path / "whole"
    for out in (grown, whole):
        record(ENV, recording(out, 3))
    files = [{p.relative_to(out): p.read_bytes() for p in out.rglob("*.*")} for out in (grown, whole)]
    assert files[0] == files[1]


def test_the_cache_and_the_policy_name_the_text_encoder_and_hold_its_features(root: Path) -> None:
    tower = named(str(root / "bert")).load()
    (folder,) = (root / "features").glob("demos-*")
    cache = FeatureCache(folder)
    assert cache.metadata.texts is not None and cache.metadata.texts.encoder == tower.identity
    np.testing.assert_array_equal(cache.text_features().numpy(), tower.encode(cache.metadata.tasks))
    policy = live(root).policy
    assert policy.config.text_encoder is not None
    assert (policy.config.text_encoder.type, policy.config.text_encoder.id) == ("minilm", str(root / "bert"))


def test_a_rollout_follows_each_episodes_own_words_and_counts_by_what_was_asked(
    root: Path, tmp_path: Path
) -> None:
    chosen = settings(root, **{"env.kwargs": {"wordings": "unseen"}, "rollout.seed": 5})
    info = evaluate(live(root), chosen.env, chosen.rollout, tmp_path)
    assert [episode["task"] for episode in info["per_episode"]] == instructions(range(5, 7), "unseen")
    asked = info["aggregated"]["asked"]
    assert sum(counted["n_episodes"] for counted in asked.values()) == 2 and "task" not in info
    assert asked.keys() == {episode["asked"] for episode in info["per_episode"]}


def test_rows_of_one_batch_may_be_told_different_things(root: Path) -> None:
    policy = live(root)
    seen: dict[str, np.ndarray] = {
        "top": np.zeros((2, 2, 16, 16, 3), np.uint8),
        "state": np.zeros((2, 2, 3), np.float32),
    }
    texts = ["pick the red box", "hand it over"]
    both = policy.act(seen, [0, 0], texts).actions
    for row, text in enumerate(texts):
        alone = policy.act({name: array[:1] for name, array in seen.items()}, [0], text).actions
        np.testing.assert_allclose(both[row], alone[0], atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 1e-5


@pytest.mark.slow
def test_a_task_that_is_chosen_is_followed_whatever_the_environment_says(root: Path, tmp_path: Path) -> None:
    chosen = settings(root, **{"rollout.task": "pick the box", "rollout.episodes": 1})
    info = evaluate(live(root, **{"rollout.task": "pick the box"}), chosen.env, chosen.rollout, tmp_path)
    assert info["task"] == "pick the box" and len(info["aggregated"]["asked"]) == 1


@pytest.mark.slow
def test_an_environment_that_says_nothing_leaves_the_choice_to_whoever_rolls_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla.rollout.evaluate.evaluate.tells_task", lambda group: False)
    chosen = settings(root)
    with pytest.raises(ConfigError, match="knows 2 tasks and none is chosen"):
        evaluate(live(root), chosen.env, chosen.rollout, tmp_path)


def test_other_weights_in_the_text_encoders_place_are_refused_and_a_missing_place_is_named(
    root: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(root / "bert", tmp_path / "bert")
    try:
        write_bert(root / "bert", seed=1)
        with pytest.raises(
            EncoderError, match="bert has another text tower than the policy was trained with"
        ):
            live(root).tasks.feature("pick it")
        shutil.rmtree(root / "bert")
        with pytest.raises(EncoderError, match=r"to encode others: .*bert"):
            live(root).tasks.feature("pick it")
        feature = live(root).tasks.feature(live(root).policy.tasks[0])
        assert feature is not None and torch.isfinite(feature).all()  # that one is in the weights
    finally:
        shutil.rmtree(root / "bert", ignore_errors=True)
        shutil.copytree(moved, root / "bert")
