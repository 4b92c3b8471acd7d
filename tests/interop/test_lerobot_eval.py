"""`lerobot-eval` and `vla rollout` drive one policy through the same episodes. make interop.

The policy is trained here in a minute, on eight demonstrations: it reaches for the box and rarely hands it
over. Its rewards, which say in each step how far the task is, differ from episode to episode, and a policy
that saw or did anything else would have others.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

EPISODES, SEED = 4, 1000
SETTINGS = """
[env]
id = "vla/SimTransfer-v0"
kwargs = { render_height = 256, render_width = 256 }

[record]
task = "sim_transfer"
episodes = 8
out = "demos"

[dataset]
path = "demos"

[encoder]
id = "siglip2-tiny-sim"
device = "cpu"

[cache]
path = "features"

[policy]
per_view_dim = 64
cond_dim = 128
n_emb = 64
n_layer = 2
n_head = 2

[train]
out = "run"
steps = 400
batch_size = 32
lr = 2e-3
warmup_steps = 20
ema_decay = 0.98
val_episodes = 0
rollout_every = 0
tracker = "none"

[rollout]
videos = 0
num_envs = 1
"""
# The order of sums, and so the last digits of a feature, depends on how many threads share them.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained run, exported for LeRobot."""
    folder = tmp_path_factory.mktemp("eval")
    (folder / "pipeline.toml").write_text(SETTINGS)
    for command in (["record"], ["embed"], ["train"], ["export", "run", "--lerobot", "exported"]):
        run("vla", *command, cwd=folder)
    return folder


def run(program: str, *options: str, cwd: Path) -> None:
    """Run a program of this environment, on one thread."""
    command = [str(Path(sys.executable).with_name(program)), *options]
    environment = {**os.environ, **ONE_THREAD}
    finished = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, f"{program} {options}: {finished.stderr[-4000:]}"


def lerobot_eval(bench: Path, name: str, *options: str) -> dict[str, Any]:
    """Evaluate with LeRobot; return its figures, an episode each."""
    common = ["--policy.path=exported", "--policy.device=cpu", "--env.type=sim_transfer", f"--seed={SEED}"]
    run("lerobot-eval", *common, f"--eval.n_episodes={EPISODES}", f"--output_dir={name}", *options, cwd=bench)
    info = json.loads((bench / name / "eval_info.json").read_bytes())
    metrics: dict[str, Any] = info["per_task"][0]["metrics"]
    return metrics


def test_lerobot_eval_and_vla_rollout_have_the_same_episodes(bench: Path) -> None:
    options = ["--episodes", str(EPISODES), "--seed", str(SEED), "--out", "ours"]
    run("vla", "rollout", "run", *options, cwd=bench)
    ours = json.loads((bench / "ours/eval_info.json").read_bytes())["per_episode"]
    theirs = lerobot_eval(bench, "theirs", f"--policy.seed={SEED}", "--eval.batch_size=1")
    assert theirs["sum_rewards"] == [episode["sum_reward"] for episode in ours]
    assert theirs["max_rewards"] == [episode["max_reward"] for episode in ours]
    assert theirs["successes"] == [episode["success"] for episode in ours]
    assert len(set(theirs["sum_rewards"])) > 1  # or nothing was told apart


def test_lerobot_eval_drives_several_environments_at_a_time(bench: Path) -> None:
    metrics = lerobot_eval(bench, "together", "--eval.batch_size=2", "--eval.use_async_envs=true")
    assert len(metrics["successes"]) == EPISODES
    assert max(metrics["max_rewards"]) > 0
