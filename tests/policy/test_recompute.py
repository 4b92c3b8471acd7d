"""Gradient checkpointing and the arithmetic of training: the same losses, less that is kept."""

from pathlib import Path

import pytest
import torch
from fakes import fake_spec, write_cache
from test_train import POLICY, losses, settings
from torch import Tensor

from vla.base import device
from vla.base.device import autocasts
from vla.base.errors import ConfigError
from vla.cache import FeatureCache
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.random import RowRandom
from vla.policy.training.recompute import recompute_activations
from vla.policy.training.run import RunDirectory
from vla.policy.training.train import train
from vla.policy.windows import Windows

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return write_cache(tmp_path / "cache", fake_spec(lengths=(12, 9), tokens=4))


def configured(head: str) -> VLAAgentConfig:
    sizes = {**POLICY.model_dump(), "n_layer": 3, "head": head}
    return VLAAgentConfig.model_validate({**sizes, "trunks": {"top": "perceiver"}})


@pytest.mark.parametrize("head", ["imf", "autoregressive"])
def test_a_training_that_recomputes_has_the_same_losses_and_weights(
    cache: FeatureCache, tmp_path: Path, head: str
) -> None:
    runs = []
    for on in (False, True):
        run = RunDirectory.create(tmp_path / str(on))
        train(run, cache, configured(head), settings(steps=2, val_every=2, gradient_checkpointing=on))
        runs.append(run)
    assert losses(runs[0]) == losses(runs[1])
    files = [run.policy_folder("last") / "model_raw.safetensors" for run in runs]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_it_keeps_less(cache: FeatureCache) -> None:
    kept = []
    for on in (False, True):
        agent = VLAAgent.for_cache(configured("imf"), cache.metadata)
        if on:
            recompute_activations(agent)
        windows = Windows(cache, agent.horizons, agent.observes, device=CPU, resident=True)
        batch = windows.batch(torch.arange(8))
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss, _ = agent.loss(batch, agent.draw(batch, RowRandom(torch.Generator().manual_seed(0))))
        loss.backward()
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.6 * kept[0]


def test_bfloat16_is_used_where_it_is_asked_for(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        device, "multiplies_bfloat16", lambda: True
    )  # without, torch computes it by other means
    found = []
    for name in ("auto", "float32", "bfloat16"):
        run = RunDirectory.create(tmp_path / name)
        train(run, cache, configured("flow"), settings(steps=2, val_every=2, autocast=name))
        found.append(losses(run))
    assert found[0] == found[1] != found[2]
    assert found[2] == pytest.approx(found[0], rel=0.05)


def test_bfloat16_is_refused_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not autocasts("auto", CPU) and autocasts("auto", torch.device("cuda"))
    assert not autocasts("float32", torch.device("cuda"))
    monkeypatch.setattr(device, "multiplies_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match=r"train\.autocast = bfloat16, and device 'cpu' has no"):
        autocasts("bfloat16", CPU)
