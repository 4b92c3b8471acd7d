"""The language model as fusion: what it sees, what of it is trained, saved and refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_language_model import KINDS, reading, write_byte_pairs, write_language_model
from fakes import fake_spec, write_cache, write_vision_checkpoint
from safetensors.torch import load_file
from test_train import losses, settings
from torch import Tensor

from vla.base.errors import CheckpointError, ConfigError
from vla.cache import FeatureCache
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.fusion.language_model import LanguageModelFusion
from vla.policy.random import RowRandom
from vla.policy.training.run import RunDirectory
from vla.policy.training.train import train

SHORT, LONG = "Pick it", "Hand it over the red box"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return write_cache(tmp_path_factory.mktemp("cache") / "cache", fake_spec(lengths=(12, 9, 10)))


def made(policy: VLAAgentConfig, cache: FeatureCache) -> tuple[VLAAgent, LanguageModelFusion]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        agent = VLAAgent.for_cache(policy, cache.metadata).eval()
    assert isinstance(agent.fusion, LanguageModelFusion)
    return agent, agent.fusion


def trained(path: Path, cache: FeatureCache, policy: VLAAgentConfig, **changes: Any) -> RunDirectory:
    run = RunDirectory.create(path)
    run.config.write_text("")
    train(run, cache, policy, settings(**{"steps": 3, "val_every": 3, "save_every": 2, **changes}))
    return run


def observed(agent: VLAAgent, texts: list[str]) -> dict[str, Tensor]:
    """Return one observation, with each of some texts."""
    generator = torch.Generator().manual_seed(1)
    seen = {c: torch.randn(1, 2, 1, 8, generator=generator).half() for c in agent.camera_names}
    seen["state"] = torch.randn(1, 2, 16, generator=generator)
    seen = {name: tensor.expand(len(texts), *tensor.shape[1:]) for name, tensor in seen.items()}
    ids = agent.read_tasks(texts)
    assert ids is not None
    return {**seen, "task": ids[:, None].expand(-1, 2, -1)}


def act(agent: VLAAgent, seen: dict[str, Tensor]) -> Tensor:
    return agent.predict_action_chunk(seen, random=RowRandom(torch.Generator().manual_seed(1)))


# --- what it sees


@pytest.mark.parametrize("kind", KINDS)
def test_an_instruction_reads_the_same_beside_a_longer_one(
    kind: str, cache: FeatureCache, tmp_path: Path
) -> None:
    agent, fusion = made(reading(write_language_model(tmp_path, kind), layers=2), cache)
    fusion.instructions.length = 0  # no padding to the length of the training's texts
    together = agent._build_cond(observed(agent, [SHORT, LONG, SHORT]))
    alone = [agent._build_cond(observed(agent, [text])) for text in (SHORT, LONG)]
    torch.testing.assert_close(together, torch.cat([*alone, alone[0]]), atol=1e-5, rtol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 1e-2


def test_queries_see_the_instruction_and_what_was_observed_until_then(
    model: Path, cache: FeatureCache
) -> None:
    agent, fusion = made(reading(model), cache)
    seen = observed(agent, [SHORT])
    before = agent._build_cond(seen)
    assert fusion.num_tokens == 2 and before.shape == (1, 4, 8)
    for name in (*agent.camera_names, "state"):
        for instant, changed in ((0, [True, True]), (1, [False, True])):
            other = seen[name].clone()
            other[:, instant] += 1
            moved = (agent._build_cond({**seen, name: other}) - before).abs().amax(-1).unflatten(1, (2, 2))
            assert (moved > 1e-4).all(-1).tolist() == [changed]
            assert (moved == 0).all(-1).tolist() == [[not c for c in changed]]


def test_the_text_of_the_newest_instant_is_followed(model: Path, cache: FeatureCache) -> None:
    agent, _ = made(reading(model), cache)
    seen = observed(agent, [SHORT, LONG])
    mixed = {**seen, "task": torch.stack([seen["task"][1, 0], seen["task"][0, 0]])[None]}
    mixed = {name: tensor if name == "task" else tensor[:1] for name, tensor in mixed.items()}
    torch.testing.assert_close(agent._build_cond(mixed), agent._build_cond(seen)[:1])


def test_what_is_injected_begins_as_large_as_a_word(model: Path, cache: FeatureCache) -> None:
    _, fusion = made(reading(model, queries=20), cache)
    word = fusion.model.get_input_embeddings().weight.square().mean().sqrt()
    for found in (fusion.queries, fusion.stream_in[0](torch.randn(512, 4))):
        torch.testing.assert_close(found.square().mean().sqrt(), word, rtol=0.3, atol=0)


def test_each_of_the_last_layers_gives_tokens(model: Path, cache: FeatureCache) -> None:
    agent, fusion = made(reading(model, layers=2, queries=3), cache)
    assert fusion.num_tokens == 6 and agent._build_cond(observed(agent, [SHORT])).shape == (1, 12, 8)


# --- what of it is trained and saved


@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_a_policy_is_saved_without_what_is_frozen_and_comes_back(
    tune: str, model: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    run = trained(tmp_path / "run", cache, reading(model, tune=tune))
    folder = run.policy_folder("last")
    names = load_file(folder / "model_raw.safetensors")
    held = {name.removeprefix("fusion.model."): t for name, t in names.items() if "fusion.model." in name}
    pretrained = load_file(model / "model.safetensors")
    assert held.keys() == (set() if tune == "frozen" else pretrained.keys())
    assert not [name for name, tensor in held.items() if torch.equal(tensor, pretrained[name])]
    first, second = load_policy(folder), load_policy(folder)
    assert isinstance(first, VLAAgent) and isinstance(second, VLAAgent)
    seen = observed(first, [SHORT])
    assert torch.equal(act(first, seen), act(second, seen))


def test_a_killed_run_goes_on_as_if_nothing_had_been(
    model: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    policy = reading(model)
    whole, killed = (trained(tmp_path / name, cache, policy, steps=4) for name in ("whole", "killed"))
    shutil.rmtree(killed.checkpoint(4))
    train(killed, cache, policy, settings(steps=4, val_every=3, save_every=2))
    assert losses(killed) == losses(whole)
    files = [run.policy_folder("last") / "model.safetensors" for run in (whole, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_it_can_be_trained_in_bfloat16_and_with_activations_computed_again(
    model: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    policy = reading(model, dtype="bfloat16")
    assert made(policy, cache)[1].model.dtype is torch.bfloat16
    kept, again = (
        trained(tmp_path / str(on), cache, policy, gradient_checkpointing=on) for on in (False, True)
    )
    assert losses(kept) == losses(again)


def test_the_model_keeps_its_mode_of_evaluation(cache: FeatureCache, tmp_path: Path) -> None:
    _, fusion = made(reading(write_language_model(tmp_path, attention_dropout=0.5), tune="full"), cache)
    fusion.train()
    assert fusion.training and not any(module.training for module in fusion.model.modules())


# --- what is refused


def test_a_policy_of_another_model_under_the_same_name_is_refused(
    cache: FeatureCache, tmp_path: Path
) -> None:
    name = write_language_model(tmp_path / "model")
    made(reading(name), cache)[0].save_pretrained(tmp_path / "policy")
    load_policy(tmp_path / "policy")
    write_language_model(name, seed=1)
    with pytest.raises(
        CheckpointError, match=r"trained on the language model \w{12}, and .* is \w{12} today"
    ):
        load_policy(tmp_path / "policy")
    write_byte_pairs(write_language_model(name), ("Pick",))
    with pytest.raises(CheckpointError, match="bring the former back under that name"):
        load_policy(tmp_path / "policy")


def test_models_that_cannot_be_had_are_refused_in_one_line(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    vision = write_vision_checkpoint(tmp_path / "vision")
    bare = write_language_model(tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    said = {
        "no/such-model": "language model 'no/such-model' is not on this machine and HF_HUB_OFFLINE is set",
        "nowhere": "'nowhere' is no directory here and no Hub id",
        str(tmp_path): "holds no language model",
        str(vision): "is a siglip_vision_model, not a causal language model",
        str(bare): "cannot be loaded as a language model",
    }
    for name, words in said.items():
        with pytest.raises(ConfigError, match=words) as caught:
            made(reading(Path(name)), cache)
        assert "\n" not in str(caught.value)


def test_settings_that_do_not_fit_are_refused(model: Path, cache: FeatureCache) -> None:
    for changes, words in (
        ({"prompt": "Do it."}, "it must hold {task}"),
        ({"tune": "full", "dtype": "bfloat16"}, "tune = full needs dtype = float32"),
    ):
        with pytest.raises(ValueError, match=words):
            reading(model, **changes)
    with pytest.raises(ValueError, match="reads the task text itself; leave language out"):
        VLAAgentConfig.model_validate({**reading(model).model_dump(), "language": True})
    with pytest.raises(
        ConfigError, match=r"reads 64 tokens, and a sequence has \d+: an instruction of 5 and 2"
    ):
        made(reading(model, queries=40), cache)
    with pytest.raises(ConfigError, match=r"has 2 layers, and policy\.fusion.layers is 3"):
        made(reading(model, layers=3), cache)
    agent, _ = made(reading(model), cache)
    with pytest.raises(ConfigError, match="needs `task`, the words of the task text"):
        agent._build_cond({name: t for name, t in observed(agent, [SHORT]).items() if name != "task"})
    with pytest.raises(ConfigError, match=r"the task text '' gives no token; set policy.fusion.prompt"):
        agent.read_tasks([""])
    said = made(reading(model, prompt="Do: {task}"), cache)[0].read_tasks([""])
    assert said is not None and said.shape[1] >= 3
