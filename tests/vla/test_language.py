"""The task text as a condition, the whole way: two tasks that nothing but their words tells apart."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import ENV_ID
from fake_language import (
    HAND,
    PICK,
    Bench,
    act,
    live,
    with_other_text_tower,
    write_two_tasks,
)
from fakes import write_vision_checkpoint
from safetensors.numpy import load_file

from vla.advice import advise
from vla.base.errors import CacheError, ConfigError, DatasetError, EncoderError
from vla.cache import FeatureCache
from vla.cache.cache_damage import cache_problems
from vla.embed.frozen_encoder import FrozenEncoder
from vla.policy.agents.vla_agent import VLAAgent
from vla.policy.training.checkpoint import load_trained
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.trunks.text import LanguageProjector
from vla.rollout.live import LivePolicy
from vla.stages import train

STANDING_STILL = {"avg_reward": 0.0, "aggregated": {"avg_max_reward": 0.0, "pc_success": 0.0, "eval_s": 0.0}}


@pytest.fixture
def copy(bench: Bench, tmp_path: Path) -> Bench:
    """Return the same with a cache of its own, which may be damaged."""
    shutil.copytree(bench.root / "features", tmp_path / "features")
    return Bench(tmp_path, bench.dataset, bench.encoder)


def cache_of(bench: Bench) -> FeatureCache:
    return FeatureCache(bench.root / "features")


def message(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# --- the condition


def test_with_language_the_policy_tells_the_tasks_apart_and_without_it_cannot(
    bench: Bench, trained: tuple[Path, float]
) -> None:
    policy, loss = trained
    told = live(bench, policy)
    np.testing.assert_allclose(act(told, PICK), [[1, 3]] * 8, atol=0.3)
    np.testing.assert_allclose(act(told, HAND), [[-1, -3]] * 8, atol=0.3)
    blind, blind_loss = bench.train("without")
    # Standardised actions are -1 and 1 with equal inputs: nothing is better than the mean, loss 1.
    assert blind_loss > 0.9
    assert loss < 0.02
    np.testing.assert_allclose(act(live(bench, blind)), 0, atol=1)


def test_the_averaged_the_plain_and_the_shared_weights_hold_the_texts(
    bench: Bench, trained: tuple[Path, float]
) -> None:
    stored = cache_of(bench).text_features()
    for weights in ("ema", "raw"):
        agent = load_trained(trained[0], weights)
        assert isinstance(agent, VLAAgent) and agent.language is not None
        assert torch.equal(agent.language.features, stored)
        assert agent.config.tasks == (PICK, HAND)


def test_language_widens_the_condition_by_language_dim(bench: Bench, trained: tuple[Path, float]) -> None:
    agent = load_trained(trained[0], "ema")
    assert isinstance(agent, VLAAgent) and agent.raw_per_step_cond_dim == 4 + 3 + 8


def test_every_head_trains_the_projector_of_the_text(bench: Bench) -> None:
    cache = cache_of(bench)
    for head in ("imf", "flow", "ddpm"):
        policy = bench.settings(**{"policy.language": True, "policy.head": head}).policy
        agent = VLAAgent.for_cache(policy, cache.metadata, cache.text_features())
        language = agent.language
        assert language is not None and language.project.in_features == cache.text_features().shape[1]
        task = language.features[:, None].expand(-1, 2, -1)
        seen = {"top": torch.zeros(2, 2, 1, 32), "state": torch.zeros(2, 2, 3), "task": task}
        chunk = agent.predict_action_chunk(seen)
        assert chunk.shape == (2, 16, 2)


def test_a_resident_and_a_mapped_cache_give_the_same_losses(bench: Bench) -> None:
    changes = {"policy.language": True, "train.steps": 3}
    _, resident = bench.train("resident", **changes)
    _, mapped = bench.train("mapped", **{**changes, "train.max_cache_gib": 1e-9})
    assert resident == mapped


def test_with_language_off_a_cache_with_texts_trains_as_one_without(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path, bench.dataset, bench.encoder)
    assert other.embed(**{"encoder.language": False}).texts == 0
    weights, losses = [], []
    for name, one in (("plain", other), ("texts", bench)):
        policy, _ = one.train(f"off-{name}", **{"train.steps": 4, "policy.head": "imf"})
        weights.append((policy / "model.safetensors").read_bytes())
        losses.append([row["loss"] for row in read_metrics(RunDirectory(one.root / f"off-{name}"), "train")])
    assert weights[0] == weights[1] and losses[0] == losses[1]
    names = load_file(policy / "model.safetensors")
    assert not [name for name in names if "language" in name]


def test_an_agent_refuses_a_batch_that_lacks_the_text_or_has_one_too_many(
    bench: Bench, trained: tuple[Path, float]
) -> None:
    seen = {"top": torch.zeros(1, 2, 1, 32), "state": torch.zeros(1, 2, 3)}
    agent = load_trained(trained[0], "ema")
    with pytest.raises(ConfigError, match="needs `task`"):
        agent.act(seen)
    plain = VLAAgent.for_cache(bench.settings().policy, cache_of(bench).metadata)
    with pytest.raises(ConfigError, match="does not take `task`"):
        plain.act({**seen, "task": torch.zeros(1, 2, 32)})


def test_texts_are_centred_and_scaled_by_one_number() -> None:
    projector = LanguageProjector(3, 2, 4)
    projector.fit(torch.tensor([[5.0, 1.0, 2.0], [5.0, 1.0001, 4.0]]))
    scaled = projector.standardize(projector.features)
    torch.testing.assert_close(scaled.square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3))
    assert scaled[:, 1].abs().max() < 1e-3  # what hardly differs stays small
    projector.fit(torch.ones(2, 3))
    assert projector(torch.ones(1, 3)).isfinite().all()


def test_a_run_goes_on_with_the_texts_that_it_began_with(copy: Bench, tmp_path: Path) -> None:
    changes = {"policy.language": True, "train.steps": 2, "train.save_every": 1}
    copy.train("run", **changes)
    moved = cache_of(copy).folder
    other = Bench(copy.root, copy.dataset, with_other_text_tower(copy.encoder, tmp_path / "siglip2-other"))
    moved.rename(moved.with_name(f"demos-siglip2-other-{cache_of(copy).metadata.recipe}"))
    other.embed()
    again = {
        **changes,
        "train.steps": 3,
        "train.out": str(copy.root / "run"),
        "encoder.id": str(copy.encoder),
    }
    with pytest.raises(CacheError, match="trained with another text tower's features") as caught:
        train(copy.settings(**again), resume=True)
    message(caught)


# --- the cache


def test_the_cache_holds_each_text_once_and_keeps_its_fingerprint(bench: Bench, tmp_path: Path) -> None:
    cache = cache_of(bench)
    assert cache.metadata.texts is not None
    assert cache.metadata.texts.tasks == cache.metadata.tasks == (PICK, HAND)
    assert cache.text_features().shape == (2, 32)
    assert cache_problems(cache.folder) == []
    plain = Bench(tmp_path, bench.dataset, bench.encoder)
    plain.embed(**{"encoder.language": False})
    without = cache_of(plain)
    assert without.metadata.fingerprint == cache.metadata.fingerprint
    raw = json.loads((without.folder / "cache.json").read_bytes())
    assert "texts" not in raw and not (without.folder / "texts.safetensors").exists()
    for one, other in zip(cache.files(), without.files(), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_texts_are_added_to_a_finished_cache_without_encoding_an_image(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Bench(tmp_path, bench.dataset, bench.encoder)
    plain.embed(**{"encoder.language": False})

    def refuse(*_: Any) -> None:
        raise AssertionError("an image is encoded")

    monkeypatch.setattr(FrozenEncoder, "encode_into", refuse)
    report = plain.embed()
    assert (report.texts, report.shards_encoded) == (2, 0)
    with_texts, due = cache_of(plain), cache_of(bench)
    assert with_texts.metadata == due.metadata
    assert torch.equal(with_texts.text_features(), due.text_features())
    stamp = (with_texts.folder / "texts.safetensors").stat().st_mtime_ns
    assert plain.embed().texts == 2
    assert (with_texts.folder / "texts.safetensors").stat().st_mtime_ns == stamp


def test_texts_stay_when_a_cache_is_mended_without_language(copy: Bench) -> None:
    cache = cache_of(copy)
    cache.files()[1].unlink()
    assert copy.embed(**{"encoder.language": False}).shards_encoded == 1
    assert cache_of(copy).metadata == cache.metadata
    assert cache_problems(cache.folder) == []


def test_another_text_tower_replaces_the_features(copy: Bench, tmp_path: Path) -> None:
    before = cache_of(copy)
    features = before.text_features()
    other = Bench(copy.root, copy.dataset, with_other_text_tower(copy.encoder, tmp_path / "siglip2-other"))
    before.folder.rename(before.folder.with_name(f"demos-siglip2-other-{before.metadata.recipe}"))
    assert other.embed().shards_encoded == 0
    torch.testing.assert_close(cache_of(other).text_features(), features + 1)
    found = cache_of(other).metadata.texts
    assert found is not None and before.metadata.texts is not None
    assert found.encoder.weights_sha256 != before.metadata.texts.encoder.weights_sha256


def test_a_damaged_text_is_named_by_verify_and_by_train_and_mended_by_embed(copy: Bench) -> None:
    cache = cache_of(copy)
    path = cache.folder / "texts.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (problem,) = cache_problems(cache.folder)
    assert "texts.safetensors has other bytes" in str(problem)
    assert advise(problem).endswith("--language")
    with pytest.raises(CacheError, match="other bytes than") as caught:
        copy.train("run", **{"policy.language": True})
    message(caught)
    assert not (copy.root / "run").exists()
    assert copy.embed().shards_encoded == 0
    assert path.read_bytes() == good


def test_texts_that_are_not_the_episodes_are_refused(copy: Bench) -> None:
    path = cache_of(copy).folder / "cache.json"
    raw = json.loads(path.read_bytes())
    raw["texts"]["tasks"] = raw["texts"]["tasks"][::-1]
    path.write_text(json.dumps(raw))
    with pytest.raises(CacheError, match="features of other task texts than its episodes have"):
        cache_of(copy)


# --- what is refused before work starts


def test_training_with_language_on_a_cache_without_says_what_to_run(bench: Bench, tmp_path: Path) -> None:
    plain = Bench(tmp_path, bench.dataset, bench.encoder)
    plain.embed(**{"encoder.language": False})
    with pytest.raises(CacheError, match=r"no features of its task texts.*vla embed .*--language$") as caught:
        plain.train("run", **{"policy.language": True})
    message(caught)
    assert not (tmp_path / "run").exists()


def test_embedding_with_language_needs_a_text_tower(bench: Bench, tmp_path: Path) -> None:
    vision = Bench(tmp_path, bench.dataset, write_vision_checkpoint(tmp_path / "vision"))
    with pytest.raises(EncoderError, match="has no text tower; language needs a two-tower") as caught:
        vision.embed()
    message(caught)
    assert not list((tmp_path / "features").rglob("*.safetensors"))
    with pytest.raises(EncoderError, match="siglip2-tiny-sim has no text tower"):
        vision.embed(**{"encoder.id": "siglip2-tiny-sim"})


def test_episodes_without_texts_are_refused(bench: Bench, tmp_path: Path) -> None:
    mute = Bench(tmp_path, write_two_tasks(tmp_path / "mute", ["", ""]), bench.encoder)
    with pytest.raises(DatasetError, match=r"no episode of .* has a task text"):
        mute.embed()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy.language": True}, "knows 2 tasks and none is chosen"),
        ({"policy.language": True, "rollout.task": "dance"}, "take a task that is trained on"),
        ({"rollout.task": PICK}, "takes no task text"),
    ],
)
def test_validation_rollouts_must_know_what_to_do(bench: Bench, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        bench.train("never", **{"train.rollout_every": 10, **changes})
    message(caught)
    assert not (bench.root / "never").exists()


def test_validation_rollouts_follow_the_task_that_is_chosen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def evaluate(policy: LivePolicy, *rest: Any) -> dict[str, Any]:
        asked.append(policy.tasks.text())
        return STANDING_STILL

    monkeypatch.setattr("vla.rollout.evaluate.validation.evaluate", evaluate)
    env = {"env.id": ENV_ID, "env.kwargs": {"cameras": ["top"], "state_dim": 3, "action_dim": 2}}
    changes = {"train.steps": 4, "train.rollout_every": 2, "policy.language": True, "rollout.task": HAND}
    bench.train("rollouts", **env, **changes)
    assert asked == [HAND, HAND]
