"""The torch.export archive gives the live policy's actions, without code of vla, of any form of actions."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_hand import arm_cache
from fakes import awake_agent

from vla.base.errors import CheckpointError, ConfigError
from vla.config import PipelineConfig
from vla.policy.actions.demonstrations import Demonstrations
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.rollout.live import LivePolicy
from vla.stages import export, export_lerobot, export_torch

ROOT = Path(__file__).parents[2]
ACTIONS = {
    "type": "relative",
    "rotations": [{"form": "quaternion_xyzw", "action": 3, "state": 3}],
    "absolute": [7],
}
SMALL = VLAAgentConfig.model_validate(
    {"streams": ["state"], "actions": ACTIONS, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> LivePolicy:
    cache = arm_cache(tmp_path_factory.mktemp("cache"))
    shown = Demonstrations(cache, 0, SMALL.horizons)
    return LivePolicy(awake_agent(VLAAgent.for_cache(SMALL, cache.metadata, demonstrations=shown)), None)


@pytest.fixture(scope="module")
def exported(policy: LivePolicy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the archive and what the command printed."""
    folder = tmp_path_factory.mktemp("policy")
    policy.policy.save_pretrained(folder)
    # In a process of its own: tracing does not go through checks of array shapes.
    command = [sys.executable, "-m", "vla", "export", str(folder), "--json", "--torch", "out/policy.pt2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--check", "2"], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "out/policy.pt2", json.loads(done.stdout)


@pytest.mark.slow
def test_the_archive_gives_the_live_policys_actions(
    exported: tuple[Path, dict[str, Any]], policy: LivePolicy
) -> None:
    state = np.random.default_rng(0).normal(size=(3, 2, 8)).astype(np.float32)
    noise = torch.stack(
        [torch.randn(16, 10, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    )
    with torch.no_grad():
        actions = torch.export.load(exported[0]).module()(torch.from_numpy(state), noise)
    expected = policy.act({"state": state}, [0, 1, 2]).actions
    np.testing.assert_allclose(actions.numpy(), expected, atol=1e-4)


@pytest.mark.slow
def test_what_lies_beside_it_says_how_it_is_called(exported: tuple[Path, dict[str, Any]]) -> None:
    path, report = exported
    assert report["checked"] == 2 and 0 <= report["max_difference_std"] < 1e-2
    inside = {"vla.json": ""}
    torch.export.load(path, extra_files=inside)
    beside = json.loads((path.parents[1] / report["metadata"]).read_text())
    assert list(json.loads(inside["vla.json"])["inputs"]) == list(beside["inputs"]) == ["state", "noise"]
    assert beside["inputs"]["noise"]["shape"] == ["batch", 16, 10]
    page = (path.parents[1] / report["notes"]).read_text()
    assert 'torch.export.load("policy.pt2")' in page and "program(state, noise)" in page


@pytest.mark.slow
def test_a_graph_of_any_form_of_actions_gives_them_in_onnx_too(policy: LivePolicy, tmp_path: Path) -> None:
    policy.policy.save_pretrained(tmp_path)
    command = [sys.executable, "-m", "vla", "export", str(tmp_path), "--json", "--onnx", "policy.onnx"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr  # it compares the two before it writes
    assert json.loads(done.stdout)["max_difference_std"] < 1e-2


@pytest.mark.slow
def test_a_file_that_is_there_is_refused(exported: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(CheckpointError, match=r"policy\.pt2 exists; choose another --torch, or --force"):
        export_torch(PipelineConfig(), exported[0].parents[1], exported[0])


def test_a_way_of_executing_that_remembers_is_not_exported(tmp_path: Path) -> None:
    settings = PipelineConfig.load(None, {}, ["rollout.execution=ensemble"], base={})
    for write, option in ((export, "onnx"), (export_torch, "torch"), (export_lerobot, "lerobot")):
        with pytest.raises(ConfigError, match=f"--{option} writes .* ensemble, .*execution=chunk"):
            write(settings, tmp_path, tmp_path / "out")
