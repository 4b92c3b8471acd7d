"""The plugin of examples/plugin, installed: embedded, trained, rolled out and served by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_env import ENV_ID
from fakes import write_dataset

import vla
from vla.client import PolicyClient

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples/plugin"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the package by itself; nothing is downloaded."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")  # a build leaves folders beside the source
    for path in PLUGIN.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT), str(ROOT / "tests")])}


def run(environment: dict[str, str], *arguments: object) -> dict[str, object]:
    command = [sys.executable, "-m", "vla", *map(str, arguments), "--json"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    assert finished.returncode == 0, finished.stderr
    result: dict[str, object] = json.loads(finished.stdout)
    return result


def test_the_package_is_short() -> None:
    assert sum(len(path.read_text().splitlines()) for path in PLUGIN.iterdir() if path.is_file()) <= 60


@pytest.mark.slow
def test_members_of_a_plugin_go_through_all_commands(environment: dict[str, str], tmp_path: Path) -> None:
    demos = write_dataset(tmp_path / "demos", (6, 5), (32, 32))
    made = run(
        environment, "embed", "--dataset", demos, "--encoder", "colour_grid", "--out", tmp_path / "features"
    )
    assert "colour_grid" in str(made["encoder"])
    policy = {"head": "linear_regression", "cond_dim": 8, "per_view_dim": 4}
    policy |= {f"trunks.{camera}": "flat" for camera in ("r_vis", "top", "front")}
    settings = [f"--set=policy.{key}={value}" for key, value in policy.items()]
    sizes = ["--set=train.rollout_every=0", "--set=train.batch_size=4", "--set=train.val_episodes=1"]
    out = tmp_path / "run"
    run(environment, "train", "--cache", tmp_path / "features", "--out", out, "--steps", 3, *settings, *sizes)
    info = run(environment, "rollout", out, "--env", ENV_ID, "--episodes", 1, "--set", "rollout.videos=0")
    assert info["aggregated"]["n_episodes"] == 1  # type: ignore[index]
    serve = [sys.executable, "-m", "vla", "serve", str(out), "--port", "0", "--json"]
    with subprocess.Popen(serve, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        with PolicyClient(json.loads(server.stdout.readline())["url"]) as client:
            assert {stream.name for stream in client.info.streams} == {"r_vis", "top", "front", "state"}
        server.terminate()


def test_without_the_package_its_policy_is_refused_by_name(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(
        vla.VlaError, match=r"there is no action head 'linear_regression'; .* of a plugin needs"
    ):
        vla.PipelineConfig.load(None, {"policy.head": "linear_regression"}, [], {})


def test_a_module_can_be_named_instead_of_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    named = "plugins.modules=['vla_example_module']"
    with pytest.raises(vla.VlaError, match="plugin 'vla_example_module' cannot be imported"):
        vla.PipelineConfig.load(None, {}, [named], {})
    # What a run or a shared policy saved is not imported: it may be a stranger's.
    vla.PipelineConfig.load(None, {}, [], {"plugins": {"modules": ["vla_example_module"]}})
