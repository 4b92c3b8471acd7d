"""A SmolVLA from its cache to a robot: encoder, policy, training, checkpoint, rollout."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_language import HAND, PICK, first_observation, write_two_tasks
from fake_smolvla import HIDDEN, TOKENS, random_weights, write_smolvla
from safetensors.torch import load_file

from vla.cache import FeatureCache
from vla.config import PipelineConfig
from vla.embed.encoders.encoder_family import ENCODERS
from vla.policy.training.run import find_policy
from vla.stages import embed, load_live, train


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a SmolVLA, demonstrations of two tasks, their cache and a run of 4 steps."""
    root = tmp_path_factory.mktemp("smolvla")
    write_smolvla(root, cameras=("top",))
    write_two_tasks(root / "demos")
    embed(settings(root))
    train(settings(root))
    return root


def settings(root: Path, **changes: Any) -> PipelineConfig:
    values = {
        "dataset.path": str(root / "demos"),
        "dataset.fps": 25,
        "encoder.id": str(root / "smolvla"),
        "encoder.device": "cpu",
        "cache.path": str(root / "features"),
        "cache.shard_frames": 20,
        "policy.type": "smolvla",
        "policy.path": str(root / "smolvla"),
        "policy.pred_horizon": 5,
        "policy.num_action_steps": 3,
        "train.out": str(root / "run"),
        "train.device": "cpu",
        "train.steps": 4,
        "train.batch_size": 6,
        "train.warmup_steps": 1,
        "train.save_every": 2,
        "train.val_episodes": 2,
        "train.rollout_every": 0,
        "train.tracker": "none",
    }
    return PipelineConfig.load(None, {**values, **changes}, [], base={})


def live_actions(root: Path, run: Path, task: str) -> np.ndarray:
    policy = load_live(settings(root), find_policy(run))
    seen = first_observation()
    observation = {"top": seen["pixels"]["top"][None, None], "state": seen["agent_pos"][None, None]}
    return policy.act(observation, [0], task).actions[0]


def test_a_folder_of_lerobots_is_recognised(root: Path) -> None:
    assert ENCODERS.parse(str(root / "smolvla")).type == "smolvla"
    assert ENCODERS.parse("lerobot/smolvla_base").type == "smolvla"


def test_the_cache_holds_the_connectors_tokens_and_the_words(root: Path) -> None:
    cache = FeatureCache(root / "features")
    (top,) = [stream for stream in cache.metadata.streams if stream.made_by]
    assert (top.shape, top.dtype) == ((TOKENS, HIDDEN), "float16")
    words = {
        text: row for text, row in zip(cache.metadata.tasks, cache.text_features().tolist(), strict=True)
    }
    assert words[PICK] == [1, 5, 6, 7, 2, -1, -1, -1, -1, -1]  # `Pick` is none of its words
    assert words[HAND] == [1, 9, 10, 2, -1, -1, -1, -1, -1, -1]


def test_training_moves_the_expert_and_leaves_the_language_model_out_of_the_checkpoint(root: Path) -> None:
    began, saved = random_weights(0), load_file(find_policy(root / "run") / "model.safetensors")
    assert not [name for name in saved if "language" in name]
    name = "expert.layers.1.self_attn.k_proj.weight"
    assert not torch.equal(saved[f"network.{name}"], began[f"model.vlm_with_expert.lm_{name}"])


def test_a_resumed_run_has_the_losses_of_one_that_never_stopped(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "run", tmp_path / "run", symlinks=True)
    shutil.rmtree(tmp_path / "run/checkpoints/000004")
    (tmp_path / "run/checkpoints/last").unlink()
    train(settings(root, **{"train.out": str(tmp_path / "run")}), resume=True)
    one, other = (
        load_file(find_policy(run) / "model.safetensors") for run in (root / "run", tmp_path / "run")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_robot_does_another_thing_when_told_so(root: Path) -> None:
    pick, hand = (live_actions(root, root / "run", task) for task in (PICK, HAND))
    assert pick.shape == (3, 2) and np.isfinite(pick).all()
    assert not np.allclose(pick, hand)
    assert not np.allclose(pick, live_actions(root, root / "run", "hand over the red box"))  # never seen
