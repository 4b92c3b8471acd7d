"""The exported graph: ONNX Runtime gives the live policy's actions, and the page beside it is right."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from fakes import CAMERAS, awake_agent, fake_spec, write_cache

from vla.base.errors import CheckpointError
from vla.config import PipelineConfig
from vla.embed import FrozenEncoder, SiglipConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.rollout.live import LivePolicy
from vla.stages import export

ROOT = Path(__file__).parents[2]
SMALL = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)


@pytest.fixture(scope="module")
def policy(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LivePolicy:
    encoder = FrozenEncoder.load(SiglipConfig(id=str(encoder_dir), device="cpu"), CAMERAS)
    spec = fake_spec(encoder=encoder.identity, dim=encoder.writes[0].channels)
    cache = write_cache(tmp_path_factory.mktemp("cache"), spec)
    return LivePolicy(awake_agent(VLAAgent.for_cache(SMALL, cache.metadata)), encoder)


def run_export(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: tracing does not go through checks of array shapes."""
    command = [sys.executable, "-m", "vla", "export", str(folder), "--json", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


@pytest.fixture(scope="module")
def exported(policy: LivePolicy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the ONNX file and what the command printed."""
    folder = tmp_path_factory.mktemp("policy")
    policy.policy.save_pretrained(folder)
    finished = run_export(folder, "--onnx", "out/policy.onnx", "--check", "3")
    assert finished.returncode == 0, finished.stderr
    return folder / "out/policy.onnx", json.loads(finished.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_the_graph_gives_the_live_policys_actions(
    exported: tuple[Path, dict[str, Any]], policy: LivePolicy, batch: int
) -> None:
    rng = np.random.default_rng(batch)
    # Plain colours: a random tower hardly tells one noise image from another.
    colours = {c: rng.integers(0, 256, (batch, 2, 1, 1, 3), dtype=np.uint8) for c in CAMERAS}
    pixels = {c: np.repeat(np.repeat(colour, 256, 2), 256, 3) for c, colour in colours.items()}
    state = rng.normal(size=(batch, 2, 16)).astype(np.float32)
    noise = torch.stack(
        [torch.randn(16, 16, generator=torch.Generator().manual_seed(s)) for s in range(batch)]
    )
    session = onnxruntime.InferenceSession(exported[0], providers=["CPUExecutionProvider"])
    feed = {f"pixels.{camera}": frames for camera, frames in pixels.items()}
    (actions,) = session.run(None, {**feed, "state": state, "noise": noise.numpy()})
    expected = policy.act({**pixels, "state": state}, list(range(batch))).actions
    assert actions.shape == (batch, 8, 16)
    np.testing.assert_allclose(actions, expected, atol=1e-5)
    other = {**feed, "pixels.top": 255 - pixels["top"]}
    (changed,) = session.run(None, {**other, "state": state, "noise": noise.numpy()})
    assert np.abs(changed - actions).max() > 1e-3  # it looks


@pytest.mark.slow
def test_the_command_reports_the_largest_difference(exported: tuple[Path, dict[str, Any]]) -> None:
    report = exported[1]
    assert report["checked"] == 3
    assert 0 <= report["max_difference_std"] < 1e-2
    assert 0 <= report["max_abs_difference"] < 1e-2


@pytest.mark.slow
def test_the_files_beside_the_graph_name_its_tensors(exported: tuple[Path, dict[str, Any]]) -> None:
    path, _ = exported
    described = json.loads(path.with_suffix(".json").read_text())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = {tensor.name: tensor.shape[1:] for tensor in session.get_inputs()}
    assert found == {name: tensor["shape"][1:] for name, tensor in described["inputs"].items()}
    assert [tensor.name for tensor in session.get_outputs()] == list(described["outputs"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["vla.image_size"]) == [256, 256]
    page = path.with_suffix(".md").read_text()
    for name in (*found, "actions", described["encoder"]):
        assert name in page


@pytest.mark.slow
def test_an_existing_file_is_refused(exported: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(CheckpointError, match=r"policy\.onnx exists; choose another --onnx, or --force"):
        export(PipelineConfig(), exported[0].parents[1], exported[0])


def test_without_its_packages_the_command_that_installs_them_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.delitem(sys.modules, "vla.rollout.export.onnx_export", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'vla\[onnx\]'"):
        __import__("vla.rollout.export.onnx_export")
