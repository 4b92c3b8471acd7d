"""`lerobot-eval` and `vla rollout` drive one policy through the same episodes. make interop.

Twice: a policy of random weights in a small world whose rewards are its actions, so that their sums tell
whether all of them were the same; and one that learns here, from four demonstrations of `sim_transfer` seen
in 16 x 16 pixels, to reach for where boxes are. Rewards there say in each step how far the task is.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_env import ENV_ID
from fakes import awake_agent, write_dataset
from lerobot_commands import run_lerobot

import vla
from vla.config import PipelineConfig
from vla.policy.agents.policy import load_policy
from vla.policy.training.run import find_policy
from vla.stages import export_lerobot

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1800)]

EPISODES, SEED = 4, 1000
SMALL = {
    "policy.per_view_dim": 32,
    "policy.cond_dim": 96,
    "policy.n_emb": 64,
    "policy.n_layer": 2,
    "policy.n_head": 2,
    "train.val_episodes": 0,
    "train.device": "cpu",
    "train.tracker": "none",
}
BY_ACTIONS = ("--env.discover_packages_path=fake_task", "--env.type=count")
TRANSFER = ("--env.type=sim_transfer", "--env.observation_height=32", "--env.observation_width=32")


@pytest.fixture(scope="module", autouse=True)
def offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="module")
def random_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a policy of large random weights, exported for LeRobot."""
    folder = tmp_path_factory.mktemp("random")
    demos = write_dataset(folder / "demos", lengths=(20, 20))
    pixels = {"encoder.type": "pixels", "encoder.image_size": [8, 8], "encoder.device": "cpu"}
    cache = vla.embed(demos, "pixels", folder / "features", settings=pixels)
    vla.train(cache, folder / "run", steps=1, settings={**SMALL, "train.batch_size": 4})
    policy = find_policy(folder / "run")
    awake_agent(load_policy(policy)).save_pretrained(policy)
    export_lerobot(PipelineConfig(), folder / "run", folder / "exported")
    return folder


@pytest.fixture(scope="module")
def transfer_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a policy that reaches for the box, exported for LeRobot."""
    folder = tmp_path_factory.mktemp("transfer")
    env = {"env.kwargs": {"render_height": 32, "render_width": 32}}
    small = {**env, "record.image_size": [32, 32]}
    vla.record("sim_transfer", folder / "demos", episodes=4, settings=small)
    pixels = {"encoder.type": "pixels", "encoder.image_size": [16, 16], "encoder.device": "cpu"}
    front = {**pixels, "dataset.cameras": ["front"]}
    cache = vla.embed(folder / "demos", "pixels", folder / "features", settings=front)
    training = {"train.batch_size": 32, "train.lr": 3e-3, "train.warmup_steps": 20, "train.ema_decay": 0.95}
    learned = {**SMALL, **training, **env, "policy.head": "mlp"}
    vla.train(cache, folder / "run", steps=300, settings=learned)
    export_lerobot(PipelineConfig(), folder / "run", folder / "exported")
    return folder


def lerobot_eval(folder: Path, name: str, *options: str) -> dict[str, Any]:
    """Evaluate with LeRobot; return its figures, an episode each."""
    common = ["--policy.path=exported", "--policy.device=cpu", f"--seed={SEED}", f"--output_dir={name}"]
    run_lerobot("eval", *common, f"--eval.n_episodes={EPISODES}", *options, cwd=folder)
    info = json.loads((folder / name / "eval_info.json").read_bytes())
    metrics: dict[str, Any] = info["per_task"][0]["metrics"]
    return metrics


def vla_rollout(folder: Path, env: str, **settings: Any) -> list[dict[str, Any]]:
    """Evaluate with vla; return its episodes."""
    settings = {"rollout.videos": 0, "rollout.num_envs": 1, **settings}
    info = vla.rollout(folder / "run", env=env, episodes=EPISODES, seed=SEED, settings=settings)
    episodes: list[dict[str, Any]] = info["per_episode"]
    return episodes


def test_every_action_of_lerobot_eval_is_that_of_vla_rollout(random_policy: Path) -> None:
    ours = vla_rollout(random_policy, ENV_ID, **{"env.clip_actions": False})  # LeRobot clips nothing
    seeded = (*BY_ACTIONS, f"--policy.seed={SEED}")
    one = lerobot_eval(random_policy, "one", *seeded, "--eval.batch_size=1")
    two = lerobot_eval(random_policy, "two", *seeded, "--eval.batch_size=2")
    other = lerobot_eval(random_policy, "other", *BY_ACTIONS, "--policy.seed=1", "--eval.batch_size=2")
    for theirs in (one, two):
        for name, key in (("sum_rewards", "sum_reward"), ("max_rewards", "max_reward")):
            np.testing.assert_allclose(theirs[name], [episode[key] for episode in ours], rtol=1e-4)
        assert theirs["successes"] == [episode["success"] for episode in ours]
    assert np.ptp(one["sum_rewards"]) > 1e-2  # it sees, and episodes differ
    assert not np.allclose(other["sum_rewards"], one["sum_rewards"], rtol=1e-2)


def test_lerobot_eval_and_vla_rollout_transfer_the_box_alike(transfer_policy: Path) -> None:
    ours = vla_rollout(transfer_policy, "vla/SimTransfer-v0")
    seeded = (*TRANSFER, f"--policy.seed={SEED}")
    theirs = lerobot_eval(transfer_policy, "theirs", *seeded, "--eval.batch_size=1")
    assert theirs["sum_rewards"] == [episode["sum_reward"] for episode in ours]
    assert theirs["max_rewards"] == [episode["max_reward"] for episode in ours]
    assert theirs["successes"] == [episode["success"] for episode in ours]
    assert len(set(theirs["sum_rewards"])) > 1  # or nothing was told apart


def test_lerobot_eval_drives_environments_in_processes_of_their_own(transfer_policy: Path) -> None:
    options = (*TRANSFER, "--eval.batch_size=2", "--eval.use_async_envs=true")
    assert len(lerobot_eval(transfer_policy, "together", *options)["successes"]) == EPISODES
