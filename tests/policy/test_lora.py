"""LoRA on the language model: what is trained, what is saved, and what is said without peft."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_language_model import reading, write_language_model
from fakes import fake_spec, write_cache
from safetensors.torch import load_file
from test_language_model import SHORT, act, made, observed, trained
from test_train import losses, settings

from vla.base.errors import ConfigError, MissingPackageError
from vla.cache import FeatureCache
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent
from vla.policy.training.optimizer import build_optimizer, trained_parameters
from vla.policy.training.train import train

SMALL = {"r": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return write_cache(tmp_path_factory.mktemp("cache") / "cache", fake_spec(lengths=(12, 9, 10)))


@pytest.fixture
def without_peft(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "peft", None)
    yield


@pytest.mark.usefixtures("without_peft")
def test_without_peft_one_line_says_what_to_install(model: Path, cache: FeatureCache) -> None:
    with pytest.raises(MissingPackageError) as caught:
        made(reading(model, tune="lora"), cache)
    assert str(caught.value) == "this needs the package 'peft'; run: pip install 'vla[lora]'"
    made(reading(model), cache)  # a frozen model needs none


def test_adapters_begin_as_nothing_and_are_what_they_are_said_to_be(model: Path, cache: FeatureCache) -> None:
    pytest.importorskip("peft")
    _, untouched = made(reading(model), cache)
    agent, fusion = made(reading(model, tune="lora", lora=SMALL), cache)
    seen = observed(agent, [SHORT])
    words = torch.arange(5)[None]
    torch.testing.assert_close(fusion.model(words)[0], untouched.model(words)[0])
    layer = fusion.model.layers[0].self_attn.q_proj
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert down.shape == (2, 32) and up.shape == (32, 2) and not up.any()
    with torch.no_grad():
        up.normal_()
    x = torch.randn(3, 32)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + 4 / 2 * x @ down.T @ up.T)
    assert agent._build_cond(seen).isfinite().all()


def test_only_the_adapters_of_the_model_are_trained_and_saved(
    model: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    policy = reading(model, tune="lora", lora=SMALL, dtype="bfloat16", lr_scale=0.5)
    run = trained(tmp_path / "run", cache, policy)
    folder = run.policy_folder("last")
    saved = load_file(folder / "model.safetensors")
    held = {name: tensor for name, tensor in saved.items() if name.startswith("fusion.model.")}
    assert len(held) == 2 * 2 * 2 and all(".lora_" in name for name in held)
    assert all(tensor.dtype is torch.float32 for tensor in held.values())
    assert any(tensor.any() for name, tensor in held.items() if ".lora_B." in name)
    agent = load_policy(folder)
    assert isinstance(agent, VLAAgent)
    assert {name for name in trained_parameters(agent) if name.startswith("fusion.model.")} == held.keys()
    groups = build_optimizer(agent, settings()).param_groups
    slow = sum(len(group["params"]) for group in groups if group["lr_scale"] == 0.5)
    assert slow == len(held)
    seen = observed(agent, [SHORT])
    again = load_policy(folder)
    assert isinstance(again, VLAAgent) and torch.equal(act(agent, seen), act(again, seen))


@pytest.mark.slow
def test_a_killed_run_of_adapters_goes_on_as_if_nothing_had_been(
    model: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    policy = reading(model, tune="lora")  # all linear layers
    whole, killed = (trained(tmp_path / name, cache, policy, steps=4) for name in ("whole", "killed"))
    shutil.rmtree(killed.checkpoint(4))
    train(killed, cache, policy, settings(steps=4, val_every=3, save_every=2))
    assert losses(killed) == losses(whole)
    files = [run.policy_folder("last") / "model_raw.safetensors" for run in (whole, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sum(".lora_A." in name for name in load_file(files[0])) == 2 * 7


def test_a_target_that_is_no_layer_is_named_beside_those_there_are(model: Path, cache: FeatureCache) -> None:
    pytest.importorskip("peft")
    with pytest.raises(
        ConfigError, match=r"names 'qkv', which is no linear layer .* down_proj, gate_proj, k_"
    ):
        made(reading(model, tune="lora", lora={"targets": ["q_proj", "qkv"]}), cache)
