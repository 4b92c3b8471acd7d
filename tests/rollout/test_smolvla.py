"""A SmolVLA from its cache to a robot: encoder, policy, training, checkpoint, rollout."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import ENV_ID
from fake_language import ACTION, HAND, PICK, first_observation, write_two_tasks
from fake_smolvla import HIDDEN, TOKENS, random_weights, write_smolvla
from safetensors.torch import load_file

from vla.base.errors import CheckpointError, ConfigError, EncoderMismatch
from vla.cache import FeatureCache
from vla.config import PipelineConfig
from vla.embed.encoders.encoder_family import ENCODERS
from vla.policy.agents.policy import load_policy
from vla.policy.pretrained.smolvla import SmolVLA
from vla.policy.random import SeededRows
from vla.policy.saved_policy import read_config
from vla.policy.sharing.share import share
from vla.policy.training.run import find_policy
from vla.policy.windows import Windows
from vla.stages import embed, load_live, rollout, train


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
    """Return the configuration of everything here; `None` leaves a key out."""
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
    named = {key: value for key, value in {**values, **changes}.items() if value is not None}
    return PipelineConfig.load(None, named, [], base={})


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
    words = dict(zip(cache.metadata.tasks, cache.text_features().tolist(), strict=True))
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
    assert not np.allclose(
        pick, live_actions(root, root / "run", "hand over the red box")
    )  # never trained on


@pytest.mark.slow
def test_it_learns_what_the_words_say_where_nothing_else_tells(root: Path, tmp_path: Path) -> None:
    """Two tasks with equal images and states, whose demonstrations go opposite ways."""
    learning = {"train.steps": 300, "train.lr": 2e-3, "train.warmup_steps": 10, "train.save_every": 300}
    run = tmp_path / "run"
    train(settings(root, **{"train.out": str(run), "train.batch_size": 16, **learning}))
    for task, due in ACTION.items():
        assert (np.sign(live_actions(root, run, task)) == due).all(), task


def test_live_actions_are_those_of_the_cached_frame(root: Path) -> None:
    policy = SmolVLA.from_pretrained(find_policy(root / "run"))
    windows = Windows(
        FeatureCache(root / "features"),
        policy.horizons,
        policy.observes,
        device=torch.device("cpu"),
        resident=True,
        texts=True,
    )
    seen = windows.batch(torch.tensor([0])).observation  # of the first episode, whose task is to pick
    actions, memory = policy.act(seen, random=SeededRows([0], torch.device("cpu")))
    np.testing.assert_allclose(actions[0].numpy(), live_actions(root, root / "run", PICK), atol=1e-4)
    assert memory is None


def test_rollouts_need_the_encoder_that_made_the_cache(root: Path, tmp_path: Path) -> None:
    env = {
        "env.id": ENV_ID,
        "env.kwargs": {"cameras": ("top",), "state_dim": 3, "action_dim": 2, "ends_after": 6},
    }
    episodes = {"rollout.episodes": 1, "rollout.num_envs": 1, "rollout.task": PICK}
    told = settings(root, **env, **episodes)
    rollout(told, root / "run", out=tmp_path / "rollout")
    (episode,) = json.loads((tmp_path / "rollout/eval_info.json").read_bytes())["per_episode"]
    assert np.isfinite(episode["sum_reward"])
    other = write_smolvla(tmp_path, cameras=("top",), seed=1)
    with pytest.raises(EncoderMismatch):
        rollout(settings(root, **env, **episodes, **{"encoder.id": str(other)}), root / "run")


def test_the_language_model_must_be_the_one_that_the_tokens_were_made_for(root: Path, tmp_path: Path) -> None:
    other = write_smolvla(tmp_path, cameras=("top",), seed=1)
    told = {"policy.path": str(other), "train.out": str(tmp_path / "run"), "encoder.id": None}
    with pytest.raises(
        ConfigError, match=r"frozen weights are not those of .*smolvla; name that one as policy"
    ):
        train(settings(root, **told))


def test_a_run_whose_smolvla_is_gone_says_so(root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(find_policy(root / "run"), tmp_path / "policy")
    config = json.loads((folder / "config.json").read_bytes())
    config["policy"]["path"] = "gone"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no directory 'gone'"):
        load_policy(folder)


def test_it_is_not_shared_without_its_language_model(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"stays in .*smolvla; .*: vla export RUN --lerobot DIR"):
        share(find_policy(root / "run"), tmp_path / "shared", {}, name="mine")
    assert not (tmp_path / "shared").exists()


def test_it_sees_one_instant(root: Path) -> None:
    with pytest.raises(ConfigError, match="obs_horizon is 2, it sees one instant; leave it at 1"):
        settings(root, **{"policy.obs_horizon": 2})


@pytest.mark.parametrize("wrong", ["siglip features", "texts of a text tower"])
def test_a_cache_that_was_not_made_for_it_is_refused(root: Path, wrong: str) -> None:
    saved = read_config(find_policy(root / "run"))
    ((digest, encoder),) = saved.encoders.items()
    if wrong == "siglip features":
        saved = saved.model_copy(update={"encoders": {digest: encoder.model_copy(update={"type": "siglip"})}})
        says = "stream 'top' was not made by encoder smolvla of .*; make a cache with vla embed --encoder"
    else:
        tower = saved.text_encoder.model_copy(update={"feature_dim": 768})  # type: ignore[union-attr]
        saved = saved.model_copy(update={"text_encoder": tower})
        says = "task texts are 768 numbers each, not the 10 tokens that .* reads; make a cache with"
    with pytest.raises(ConfigError, match=says):
        saved.policy.build(saved)
