"""`vla export --lerobot`: what LeRobot reads of a policy. That LeRobot does read it: `make interop`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import awake_agent, fake_spec, write_cache

from vla.base.errors import CheckpointError
from vla.cache import DatasetIdentity, Stream
from vla.cli import main
from vla.config import PipelineConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.saved_policy import read_config
from vla.policy.training.run import find_policy
from vla.stages import export_lerobot

SMALL = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)
LIDAR = Stream(name="lidar", kind="points", dtype="float32", shape=(8, 4), key="observation.lidar")


def save_policy(root: Path, dataset: Path, keys: dict[str, str], sensors: Sequence[Stream] = ()) -> Path:
    """Save a policy of the cameras `top` and `wrist`; return its folder."""
    made = DatasetIdentity(
        path=str(dataset), format="any", content_sha256="a" * 64, fps=30, keys={"action": "action", **keys}
    )
    spec = fake_spec(cameras=("top", "wrist"), state_dim=6, action_dim=6, dataset=made, sensors=sensors)
    cache = write_cache(root / "cache", spec)
    awake_agent(VLAAgent.for_cache(SMALL, cache.metadata)).save_pretrained(root / "policy")
    return root / "policy"


LEROBOT_KEYS = {
    "top": "observation.images.up",
    "wrist": "observation.images.wrist",
    "state": "observation.state",
}


def write_info(dataset: Path, height: int, width: int) -> None:
    """Write of a LeRobotDataset what says how large its images are."""
    image = {"dtype": "video", "shape": [height, width, 3]}
    features = {"observation.images.up": image, "observation.images.wrist": image}
    (dataset / "meta").mkdir(parents=True)
    (dataset / "meta/info.json").write_text(json.dumps({"features": features}))


def exported(policy: Path, out: Path, **settings: Any) -> dict[str, Any]:
    """Export for LeRobot; return LeRobot's configuration."""
    export_lerobot(PipelineConfig.load(None, settings, [], {}), policy, out)
    config: dict[str, Any] = json.loads((out / "config.json").read_bytes())
    return config


def test_lerobot_is_told_the_names_and_sizes_of_its_own_demonstrations(tmp_path: Path) -> None:
    write_info(tmp_path / "demos", 480, 640)
    policy = save_policy(tmp_path, tmp_path / "demos", LEROBOT_KEYS)
    assert exported(policy, tmp_path / "out") == {
        "type": "vla",
        "n_obs_steps": 2,
        "input_features": {
            "observation.images.up": {"type": "VISUAL", "shape": [3, 480, 640]},
            "observation.images.wrist": {"type": "VISUAL", "shape": [3, 480, 640]},
            "observation.state": {"type": "STATE", "shape": [6]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [6]}},
        "streams": LEROBOT_KEYS,
        "num_steps": 0,
        "task": "",
    }


def test_demonstrations_of_another_format_get_lerobots_names_and_the_encoders_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"top": "images/top", "wrist": "images/wrist", "lidar": "scan", "state": "qpos"}
    policy = save_policy(tmp_path, tmp_path / "gone", keys, [LIDAR])
    config = exported(policy, tmp_path / "out")
    assert config["input_features"] == {
        "observation.images.top": {"type": "VISUAL", "shape": [3, 256, 256]},
        "observation.images.wrist": {"type": "VISUAL", "shape": [3, 256, 256]},
        "observation.lidar": {"type": "ENV", "shape": [8, 4]},
        "observation.state": {"type": "STATE", "shape": [6]},
    }
    assert "config.json says 256 x 256" in capsys.readouterr().err


def test_the_folder_is_a_policy_for_vla_too(tmp_path: Path) -> None:
    policy = save_policy(tmp_path, tmp_path / "gone", LEROBOT_KEYS)
    exported(policy, tmp_path / "out")
    found = find_policy(tmp_path / "out")
    assert found == tmp_path / "out/vla"
    assert read_config(found) == read_config(policy)


def test_sampling_steps_become_lerobots_default(tmp_path: Path) -> None:
    policy = save_policy(tmp_path, tmp_path / "gone", LEROBOT_KEYS)
    settings = {"rollout.num_steps": 4, "rollout.task": "stack the cups"}
    config = exported(policy, tmp_path / "out", **settings)
    assert (config["num_steps"], config["task"]) == (4, "stack the cups")


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    policy = save_policy(tmp_path, tmp_path / "gone", LEROBOT_KEYS)
    with pytest.raises(CheckpointError, match=r"policy exists and is not empty; choose another --lerobot"):
        export_lerobot(PipelineConfig(), policy, policy)


@pytest.mark.parametrize("options", [[], ["--onnx", "a.onnx", "--lerobot", "b"]])
def test_one_kind_of_export_is_named(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", "runs/demo", *options])
    assert stopped.value.code == 2
    assert "one of --onnx FILE, --torch FILE, --lerobot DIR" in capsys.readouterr().err
