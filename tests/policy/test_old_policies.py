"""Policies written before there were streams: read in the words of today, to the same actions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import awake_agent, fake_spec, write_cache
from safetensors.torch import load_file, save_file
from test_train import POLICY, losses, settings

from vla.base.errors import CheckpointError
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.random import GivenNoise
from vla.policy.saved_policy import read_config
from vla.policy.sharing.share import share
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_damage import checkpoint_problems
from vla.policy.training.train import train
from vla.policy.version1 import current_name, upgrade_policy

OLD: dict[str, Any] = {
    "policy": {
        "per_view_dim": 4,
        "language": False,
        "language_dim": 64,
        "cond_dim": 8,
        "obs_horizon": 2,
        "pred_horizon": 16,
        "num_action_steps": 8,
        "head": "imf",
        "residual": "attnres",
        "n_emb": 16,
        "n_layer": 1,
        "n_head": 2,
        "imf": {
            "flow_share": 0.5,
            "uniform_share": 0.5,
            "pinned_share": 0.1,
            "logit_mean": -0.4,
            "logit_std": 1.0,
            "loss_power": 0.5,
            "loss_offset": 0.001,
            "derivative": "jvp",
        },
        "ddpm": {"levels": 100, "clip": 1.0, "eta": 0.0},
        "mlp": {"width": 1024, "layers": 3},
    },
    "camera_names": ["r_vis", "top", "front"],
    "state_dim": 16,
    "action_dim": 16,
    "fps": 25.0,
    "encoder": {
        "id": "fake-encoder",
        "revision": None,
        "weights_sha256": "b" * 64,
        "pooling": "pooled",
        "dtype": "float32",
        "feature_dim": 8,
        "tokens": 1,
    },
    "preprocessing": {
        "image_size": [256, 256],
        "interpolation": "bilinear-antialias-uint8",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
    "cache_fingerprint": "0123456789ab",
    "data": {
        "dataset": {
            "path": "data/fake",
            "revision": None,
            "format": "lerobot-v3.0",
            "content_sha256": "a" * 64,
            "episodes": None,
            "fps": 25.0,
            "state_key": "observation.state",
            "action_key": "action",
        },
        "num_episodes": 2,
        "num_frames": 21,
        "tasks": ["pick"],
    },
    "text_encoder": None,
}
OLD_NAMES = {
    "trunks.0.standardize.mean": "projector.standardize.0.mean",
    "trunks.0.standardize.std": "projector.standardize.0.std",
    "trunks.0.project.weight": "projector.project.0.weight",
    "trunks.0.project.bias": "projector.project.0.bias",
    "fusion.cond_projector.weight": "cond_projector.weight",
    "fusion.cond_projector.bias": "cond_projector.bias",
}


def old_name(name: str) -> str:
    """Say what a tensor was called: of the other cameras as of the first."""
    key, _, moment = name.partition("/")
    number = key.split(".")[1] if key.startswith("trunks.") else "0"
    old = OLD_NAMES.get(key.replace(f"trunks.{number}.", "trunks.0."), key)
    return old.replace(".0.", f".{number}.", 1) + (f"/{moment}" if moment else "")


def make_old(folder: Path, *files: Path) -> None:
    """Turn a policy folder of today into one of before, tensors of further files too."""
    (folder / "config.json").write_text(json.dumps(OLD))
    for path in (folder / "model.safetensors", *files):
        save_file({old_name(name): tensor for name, tensor in load_file(path).items()}, path)


@pytest.fixture
def agent(tmp_path: Path) -> VLAAgent:
    return awake_agent(VLAAgent.for_cache(POLICY, write_cache(tmp_path / "cache", fake_spec()).metadata))


def chunk(agent: VLAAgent) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    observation = {s.name: torch.randn(2, 2, *s.shape, generator=random) for s in agent.observes}
    noise = GivenNoise(torch.randn(2, 16, 16, generator=random))
    return agent.eval().predict_action_chunk(observation, random=noise)


def test_an_old_policy_gives_the_actions_that_it_always_gave(agent: VLAAgent, tmp_path: Path) -> None:
    agent.save_pretrained(tmp_path / "old")
    make_old(tmp_path / "old")
    assert "projector.project.1.weight" in load_file(tmp_path / "old/model.safetensors")
    assert torch.equal(chunk(VLAAgent.from_pretrained(tmp_path / "old")), chunk(agent))


def test_an_old_configuration_says_the_same_in_the_words_of_today(agent: VLAAgent, tmp_path: Path) -> None:
    agent.save_pretrained(tmp_path / "old")
    make_old(tmp_path / "old")
    found = read_config(tmp_path / "old")
    assert (found.policy, found.streams, found.action) == (
        agent.config.policy,
        agent.config.streams,
        agent.config.action,
    )
    assert found.encoders == agent.config.encoders
    assert found.camera_names == ("r_vis", "top", "front")
    files = {"content_sha256": found.data[0].dataset.content_sha256}  # of the dataset's files, then
    assert found.data[0].dataset == agent.config.data[0].dataset.model_copy(update=files)


def test_the_settings_of_the_chosen_head_are_its_own_now_and_the_others_are_gone() -> None:
    upgraded = upgrade_policy({"head": "ddpm", "imf": {"flow_share": 0.1}, "ddpm": {"eta": 0.5}, "n_emb": 64})
    assert upgraded == {"head": {"type": "ddpm", "eta": 0.5}, "n_emb": 64}
    assert upgrade_policy({"imf": {"flow_share": 0.1}}) == {"head": {"type": "imf", "flow_share": 0.1}}
    today = {"type": "agent", "head": {"type": "flow"}}
    assert upgrade_policy(today) == today and upgrade_policy({"head": "flow"}) == {"head": "flow"}
    assert VLAAgentConfig.model_validate(upgrade_policy(OLD["policy"])) == POLICY


def test_names_of_today_stay_as_they_are(agent: VLAAgent) -> None:
    assert all(current_name(name) == name for name in agent.state_dict())


def test_an_old_policy_that_is_shared_is_shared_in_the_form_of_today(agent: VLAAgent, tmp_path: Path) -> None:
    agent.save_pretrained(tmp_path / "old")
    make_old(tmp_path / "old")
    share(tmp_path / "old", tmp_path / "shared", {}, name="policy")
    assert json.loads((tmp_path / "shared/config.json").read_bytes())["format_version"] == 2
    assert torch.equal(chunk(VLAAgent.from_pretrained(tmp_path / "shared")), chunk(agent))


def test_an_old_run_goes_on_where_it_stood(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache", fake_spec(lengths=(12, 9, 10)))
    runs = [RunDirectory.create(tmp_path / name) for name in ("whole", "old")]
    for run in runs:
        train(run, cache, POLICY, settings())
    shutil.rmtree(runs[1].checkpoint(8))
    checkpoint = runs[1].checkpoint(4)
    policy, optimizer = (
        checkpoint / "pretrained_model",
        checkpoint / "training_state/optimizer_state.safetensors",
    )
    (checkpoint / "checksums.json").unlink()
    make_old(policy, policy / "model_raw.safetensors", optimizer)
    assert len(list(checkpoint_problems(checkpoint))) == 1  # it has no checksums
    train(runs[1], cache, POLICY, settings())
    assert losses(runs[1]) == losses(runs[0])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("state_dim", 65537, "'state_dim' = 65537 is not valid"),
        ("camera_names", [], "camera_names"),
        ("encoder", {}, r"key 'encoder\.\w+' is missing"),
        ("policy", {"heads": "imf"}, r"unknown key 'policy\.heads'; did you mean 'head'\?"),
        ("language", True, "unknown key 'language'"),
        ("fps", 0, "'fps'"),
    ],
)
def test_an_old_configuration_that_cannot_be_is_refused_in_one_line(
    agent: VLAAgent, tmp_path: Path, place: str, value: object, message: str
) -> None:
    agent.save_pretrained(tmp_path / "old")
    (tmp_path / "old/config.json").write_text(json.dumps(OLD | {place: value}))
    with pytest.raises(CheckpointError, match=message):
        load_policy(tmp_path / "old")
