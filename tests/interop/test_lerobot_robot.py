"""A policy of vla on a robot of LeRobot's, moved by its commands and its policy server. make interop.

The full circle: LeRobot records an arm with the joints of an SO-101, vla embeds and trains, LeRobot drives.
The training is for form's sake: the weights are then replaced by large random numbers, so that the actions
tell apart what the policy sees.
"""

import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import awake_agent
from lerobot_commands import run_lerobot

import vla
from vla.base.errors import CheckpointError, ConfigError, EnvironmentSetupError
from vla.config import PipelineConfig
from vla.policy.agents.policy import load_policy
from vla.policy.training.run import find_policy
from vla.rollout.live import LivePolicy, noise_seeds
from vla.stages import export_lerobot

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SMALL = {
    "policy.cond_dim": 16,
    "policy.n_emb": 16,
    "policy.n_layer": 1,
    "policy.n_head": 2,
    "train.batch_size": 8,
    "train.val_episodes": 0,
    "train.device": "cpu",
    "train.tracker": "none",
}
SEED = 7


@pytest.fixture(scope="session", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_LEROBOT_HOME"] = str(tmp_path_factory.mktemp("lerobot-home"))


@pytest.fixture(scope="session")
def exported(offline: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a policy of the arm as `vla export --lerobot` writes it."""
    root = tmp_path_factory.mktemp("arm")
    record_arm(root / "demos")
    pixels = {"encoder.type": "pixels", "encoder.image_size": [24, 32], "encoder.device": "cpu"}
    cache = vla.embed(root / "demos", "pixels", root / "features", settings=pixels)
    vla.train(cache, root / "run", steps=1, settings=SMALL)
    folder = find_policy(root / "run")
    awake_agent(load_policy(folder)).save_pretrained(folder)
    export_lerobot(PipelineConfig(), root / "run", root / "exported")
    return root / "exported"


def record_arm(root: Path) -> None:
    """Record two episodes with LeRobot."""
    from fake_arm import FPS, JOINTS, SIZE, VIEWS, seen
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    image = {"dtype": "image", "shape": (*SIZE, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (len(JOINTS),), "names": list(JOINTS)}
    features = {f"observation.images.{view}": image for view in VIEWS}
    features |= {"observation.state": vector, "action": vector}
    dataset = LeRobotDataset.create("someone/arm", FPS, features, root=root, use_videos=False)
    for episode in range(2):
        for step in range(12):
            now, then = seen(12 * episode + step), seen(12 * episode + step + 1)
            frame: dict[str, Any] = {f"observation.images.{view}": now[view] for view in VIEWS}
            frame["observation.state"] = np.array([now[joint] for joint in JOINTS], np.float32)
            frame["action"] = np.array([then[joint] for joint in JOINTS], np.float32)
            dataset.add_frame({**frame, "task": "move"})
        dataset.save_episode()
    dataset.finalize()


@pytest.fixture(scope="session")
def live(exported: Path) -> LivePolicy:
    """Return the same policy as vla drives it."""
    return vla.load_live(exported, device="cpu")


def history(*steps: int) -> dict[str, np.ndarray]:
    """Return what the arm observes after so many actions, as one robot's history."""
    from fake_arm import JOINTS, VIEWS, seen

    frames = [seen(step) for step in steps]
    state = np.array([[frame[joint] for joint in JOINTS] for frame in frames], np.float32)
    return {"state": state[None], **{view: np.stack([f[view] for f in frames])[None] for view in VIEWS}}


def batch(*steps: int) -> dict[str, Any]:
    """Return what several arms observe, each after some actions, as LeRobot gives it to a policy."""
    rows = [history(step) for step in steps]
    images = {
        f"observation.images.{view}": torch.from_numpy(np.concatenate([row[view][:, 0] for row in rows]))
        for view in ("front", "wrist")
    }
    floats = {name: image.permute(0, 3, 1, 2).float() / 255 for name, image in images.items()}
    state = torch.from_numpy(np.concatenate([row["state"][:, 0] for row in rows]))
    return {**floats, "observation.state": state, "task": ["move"] * len(steps)}


def vlas_own_actions(live: LivePolicy, decisions: int) -> np.ndarray:
    """Return the actions of an episode in which the arm does as it is told."""
    chunks = []
    for decision in range(decisions):
        now = decision * live.horizons.num_action_steps
        noise = noise_seeds([SEED], decision)
        chunks.append(live.act(history(max(now - 1, 0), now), noise).actions[0])
    return np.concatenate(chunks)


def test_lerobot_rollout_moves_the_arm_as_vla_would(exported: Path, live: LivePolicy, tmp_path: Path) -> None:
    options = [
        f"--policy.path={exported}",
        f"--policy.seed={SEED}",
        "--policy.device=cpu",
        "--robot.discover_packages_path=fake_arm",
        "--robot.type=fake_arm",
        f"--robot.log={tmp_path / 'log'}",
        "--task=move",
        "--duration=4",
        "--play_sounds=false",
        "--return_to_initial_position=false",
    ]
    run_lerobot("rollout", *options, cwd=tmp_path)
    moved = np.array([json.loads(line) for line in (tmp_path / "log").read_text().splitlines()])
    expected = vlas_own_actions(live, 3)
    assert len(moved) >= len(expected) == 24
    np.testing.assert_allclose(moved[:24], expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def server(exported: Path, tmp_path: Path) -> Iterator[str]:
    """Return the address of LeRobot's policy server, started so that it knows policies of vla."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lerobot_policy_vla.policy_server", "--host=127.0.0.1", f"--port={port}"]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


def test_lerobots_policy_server_answers_with_vlas_chunk(
    exported: Path, live: LivePolicy, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # LeRobot writes logs/ into the working directory
    from fake_arm import FakeArmConfig
    from lerobot.async_inference.configs import RobotClientConfig
    from lerobot.async_inference.robot_client import RobotClient
    from lerobot.transport import services_pb2

    with_seed(exported, tmp_path / "seeded")
    robot = FakeArmConfig(log=tmp_path / "log")
    config = RobotClientConfig(
        policy_type="vla",
        pretrained_name_or_path=str(tmp_path / "seeded"),
        robot=robot,
        actions_per_chunk=50,
        server_address=server,
    )
    client = RobotClient(config)
    began = time.monotonic()
    while not client.start():
        assert time.monotonic() - began < 120, (tmp_path / "server.log").read_text()[-2000:]
        time.sleep(0.5)
    client.control_loop_observation("move")
    answer = pickle.loads(client.stub.GetActions(services_pb2.Empty()).data)
    client.stop()
    chunk = np.stack([timed.get_action().numpy() for timed in answer])
    expected = live.act(history(0, 0), noise_seeds([SEED], 0)).actions[0]
    np.testing.assert_allclose(chunk, expected, rtol=1e-5, atol=1e-5)


def with_seed(exported: Path, out: Path) -> None:
    """Save a policy with LeRobot's own means, its noise made repeatable."""
    policy = load(exported)
    policy.config.seed = SEED
    policy.save_pretrained(out)
    for processor in exported.glob("policy_*.json"):
        (out / processor.name).write_bytes(processor.read_bytes())


def load(exported: Path) -> Any:
    from lerobot.configs import PreTrainedConfig
    from lerobot_policy_vla.modeling_vla import VlaPolicy

    return VlaPolicy.from_pretrained(exported, config=PreTrainedConfig.from_pretrained(exported))


def test_robots_in_a_batch_do_what_each_does_alone(exported: Path) -> None:
    together, alone = load(exported), load(exported)
    together.config.seed = alone.config.seed = SEED
    steps = range(12)  # a decision, and half of the chunk of the next
    both = torch.stack([together.select_action(batch(step, step + 100)) for step in steps])
    first = torch.stack([alone.select_action(batch(step)) for step in steps])
    alone.reset()  # the next episode: its noise has the next seed, as the second row's
    second = torch.stack([alone.select_action(batch(step + 100)) for step in steps])
    assert both.shape == (12, 2, 6)
    torch.testing.assert_close(both, torch.cat([first, second], dim=1), rtol=1e-4, atol=1e-4)
    assert (first - second).abs().max() > 0.1  # it looks


def test_an_episode_does_not_remember_the_one_before(exported: Path) -> None:
    policy = load(exported)
    policy.config.seed = SEED
    fresh = policy.select_action(batch(3))
    policy.select_action(batch(4))
    policy.reset()
    policy.config.seed = SEED - 1
    torch.testing.assert_close(policy.select_action(batch(3)), fresh, rtol=0, atol=0)


def test_lerobots_floats_become_the_bytes_that_they_were() -> None:
    from lerobot_policy_vla.observations import to_streams

    from vla.cache import Stream

    top = Stream(name="top", kind="image", dtype="uint8", shape=(0, 0, 3))
    image = np.arange(256 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    floats = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    found = to_streams({"observation.images.top": floats}, [top], {"top": "observation.images.top"})
    assert np.array_equal(found["top"], image)


def test_a_camera_of_another_name_is_named_with_the_option_that_renames_it(exported: Path) -> None:
    observed = batch(0)
    observed["observation.images.up"] = observed.pop("observation.images.front")
    with pytest.raises(EnvironmentSetupError, match=r"images\.front, found: .*images\.up.*--rename_map"):
        load(exported).select_action(observed)


def test_images_of_another_range_are_refused(exported: Path) -> None:
    observed = batch(1)
    observed["observation.images.wrist"] = observed["observation.images.wrist"] * 255
    with pytest.raises(EnvironmentSetupError, match=r"images\.wrist must be in \[0, 1\], found values from"):
        load(exported).select_action(observed)


def test_a_state_of_another_robot_is_refused(exported: Path) -> None:
    observed = {**batch(0), "observation.state": torch.zeros(1, 5)}
    with pytest.raises(EnvironmentSetupError, match=r"observation\.state of shape \[6\], found \[5\]"):
        load(exported).select_action(observed)


def test_training_by_lerobot_is_refused_in_one_line(exported: Path) -> None:
    policy = load(exported)
    for refused in (lambda: policy.forward({}), policy.get_optim_params, policy.config.get_optimizer_preset):
        with pytest.raises(ConfigError, match=r"LeRobot does not train policies of type vla; vla train does"):
            refused()


def test_a_run_is_no_folder_for_lerobot_and_the_line_says_how_to_make_one(exported: Path) -> None:
    from lerobot_policy_vla.modeling_vla import VlaPolicy

    with pytest.raises(CheckpointError, match=r"vla export RUN --lerobot DIR"):
        VlaPolicy.from_pretrained(exported.parent / "run")


def test_the_exported_processors_are_those_of_the_plugin(exported: Path, tmp_path: Path) -> None:
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies import make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(exported, cli_overrides=["--device=cpu"])
    for made in make_pre_post_processors(config):
        made.save_pretrained(tmp_path)
    for path in (tmp_path / "policy_preprocessor.json", tmp_path / "policy_postprocessor.json"):
        assert json.loads(path.read_bytes()) == json.loads((exported / path.name).read_bytes())
