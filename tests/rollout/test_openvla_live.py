"""OpenVLA the whole way: patches are cached, its adapters trained on them, and it drives by words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_env import ENV_ID
from fake_language import HAND, PICK, write_two_tasks
from fake_openvla import write_openvla
from safetensors.torch import load_file

from vla.base.errors import ConfigError
from vla.config import PipelineConfig
from vla.policy.training.run import RunDirectory, find_policy
from vla.policy.training.run_log import read_metrics
from vla.stages import embed, export, load_live, rollout, train


def settings(root: Path, **changes: Any) -> PipelineConfig:
    values = {
        "dataset.path": str(root / "demos"),
        "dataset.fps": 25,
        "encoder.id": str(root / "openvla"),
        "encoder.device": "cpu",
        "cache.path": str(root / "features"),
        "policy.type": "openvla",
        "policy.model": str(root / "openvla"),
        "policy.dtype": "float32",
        "policy.tune": "projector",
        "train.out": str(root / "run"),
        "train.device": "cpu",
        "train.steps": 20,
        "train.batch_size": 8,
        "train.lr": 1e-2,
        "train.warmup_steps": 3,
        "train.ema_decay": 0.8,
        "train.val_episodes": 2,
        "train.log_every": 5,
        "train.rollout_every": 0,
        "train.tracker": "none",
        "env.id": ENV_ID,
        "env.kwargs": {"cameras": ["top"], "state_dim": 3, "action_dim": 2},
        "rollout.episodes": 1,
        "rollout.num_envs": 1,
        "rollout.videos": 0,
    }
    return PipelineConfig.load(None, {**values, **changes}, [], base={})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvla")
    write_two_tasks(folder / "demos")
    write_openvla(folder / "openvla")
    embed(settings(folder))
    return folder


def see(root: Path, policy: Path, task: str) -> np.ndarray:
    """Return the action for a black image."""
    live = load_live(settings(root), policy)
    return live.act({"top": np.zeros((1, 1, 32, 32, 3), np.uint8)}, [0], task).actions[0]


@pytest.mark.slow
def test_its_projector_is_trained_on_cached_patches_and_it_drives(root: Path) -> None:
    out = root / "projector"
    report = train(settings(root, **{"train.out": str(out)}))
    losses = [row["loss"] for row in read_metrics(RunDirectory(out), "train")]
    assert report.val_loss is not None and losses[-1] < losses[0]
    policy = find_policy(out)
    saved = load_file(policy / "model.safetensors")
    assert {name.rpartition(".")[0] for name in saved if name.startswith("network.")} == {
        f"network.projector.fc{layer}" for layer in (1, 2, 3)
    }
    found = rollout(settings(root, **{"rollout.task": PICK}), policy, out=root / "rollout")
    assert found["task"] == PICK and found["aggregated"]["n_episodes"] == 1


def test_adapters_learn_to_do_what_the_words_say(root: Path) -> None:
    pytest.importorskip("peft")
    changes = {"policy.tune": "lora", "policy.lora.r": 8, "train.steps": 60, "train.out": str(root / "lora")}
    report = train(settings(root, **changes))
    assert report.val_loss is not None and report.val_loss < 1.0  # 5.5 is no idea which of 256 tokens
    for task, sign in ((PICK, 1), (HAND, -1)):
        np.testing.assert_allclose(
            see(root, find_policy(root / "lora"), task), [[sign, sign * 3.0]], atol=0.1
        )


def test_it_acts_as_published_without_a_training(root: Path) -> None:
    frozen = {"policy.tune": "frozen", "train.out": str(root / "published")}
    train(settings(root, **{**frozen, "policy.unnorm_key": "kitchen", "train.steps": 0}))
    policy = find_policy(root / "published")
    saved = load_file(policy / "model.safetensors")
    assert not any(name.startswith("network.") for name in saved)
    (action,) = see(root, policy, "Take the red box")
    assert 0 <= action[0] <= 1 and 10 <= action[1] <= 20
    with pytest.raises(ConfigError, match=r"policy\.tune = frozen leaves nothing to train"):
        train(settings(root, **{**frozen, "train.out": str(root / "none")}))
    with pytest.raises(ConfigError, match="serve the policy: vla serve"):
        export(settings(root, **{"rollout.task": PICK}), policy, root / "policy.onnx")
