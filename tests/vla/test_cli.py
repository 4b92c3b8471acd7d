"""The command line: help, one-line errors, JSON, and the whole path on a small dataset."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import write_cache, write_dataset, write_vision_checkpoint

from vla.cli import app, main
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig

Cli = Callable[..., tuple[int, str, str]]
"""Arguments in; exit code, stdout and stderr out."""

COMMANDS = [
    "record",
    "embed",
    "compact",
    "pretrain",
    "train",
    "adapt",
    "rollout",
    "sweep",
    "report",
    "serve",
    "export",
    "share",
    "inspect",
    "verify",
]
SMALL = [
    "--set=policy.cond_dim=16",
    "--set=policy.n_emb=16",
    "--set=policy.n_layer=1",
    "--set=policy.n_head=2",
    "--set=train.batch_size=8",
    "--set=train.val_episodes=0",
    "--set=train.rollout_every=0",
    "--set=train.log_every=1",
]


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command; return exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        code = stopped.value.code
        captured = capsys.readouterr()
        return (code if isinstance(code, int) else 0), captured.out, captured.err

    return run


def result(ran: tuple[int, str, str]) -> dict[str, Any]:
    assert ran[0] == 0, ran[2]
    return dict(json.loads(ran[1]))


def test_every_command_has_help_with_a_runnable_example_and_json(cli: Cli) -> None:
    names = [command.callback.__name__ for command in app.registered_commands if command.callback]
    assert sorted(names) == sorted(COMMANDS)
    for command in COMMANDS:
        code, out, _ = cli(command, "--help")
        assert code == 0
        assert f"Example: vla {command}" in " ".join(out.split())
        assert "--json" in out


def test_the_versions_that_a_report_needs_are_printed(cli: Cli) -> None:
    code, out, _ = cli("--version")
    assert code == 0
    assert [part.split()[0] for part in out.split(", ")] == ["vla", "torch", "transformers", "mujoco"]


def test_inspecting_a_dataset_names_what_can_be_chosen(cli: Cli, dataset: Path) -> None:
    described = result(cli("inspect", dataset, "--json"))
    assert described["cameras"] == ["r_vis", "top", "front"]
    assert described["streams"][-2:] == [
        "state (vector, float32 [16]) from observation.state",
        "action (vector, float32 [16]) from action",
    ]


def test_embed_and_train_need_no_more_than_their_inputs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demos = write_dataset(tmp_path / "demos", lengths=(6, 5))
    encoder = write_vision_checkpoint(tmp_path / "encoder")
    embedded = result(cli("embed", "--dataset", demos, "--encoder", encoder, "--out", "features", "--json"))
    assert (embedded["frames"], embedded["cameras"]) == (11, ["r_vis", "top", "front"])

    shutil.rmtree(demos)  # training opens no image and no encoder
    shutil.rmtree(encoder)
    command = ["train", "--cache", "features", "--out", "run", "--per-view-dim", "8", *SMALL]
    trained = result(cli(*command, "--steps", "2", "--json"))
    assert trained["steps"] == 2

    resumed = result(cli("train", "--resume", "--extend", "--out", "run", "--steps", "4", "--json"))
    assert (resumed["resumed_from"], resumed["steps"]) == (2, 4)
    with monkeypatch.context() as inside:
        inside.chdir("run")
        again = ["train", "--resume", "--out", ".", "--cache", "../features", "--steps", "4"]
        assert result(cli(*again, "--json"))["resumed_from"] == 4

    described = result(cli("inspect", "run", "--json"))
    assert (described["kind"], described["last_step"], described["policy.per_view_dim"]) == (
        "training run",
        4,
        8,
    )
    assert result(cli("inspect", "features", "--json"))["frames"] == 11
    assert result(cli("inspect", "run/checkpoints/last", "--json"))["kind"] == "policy (agent)"


def test_train_works_as_written_beside_a_pipeline_toml(cli: Cli, tmp_path: Path, encoder_dir: Path) -> None:
    demos = write_dataset(tmp_path / "demos", lengths=(6, 5))
    Path("pipeline.toml").write_text(
        f"""
        [dataset]
        path = "{demos}"
        [encoder]
        id = "{encoder_dir}"
        [policy]
        cond_dim = 16
        n_emb = 16
        n_layer = 1
        n_head = 2
        [train]
        steps = 1
        batch_size = 4
        val_episodes = 0
        rollout_every = 0
        """
    )
    result(cli("embed", "--json"))
    result(cli("train", "--per-view-dim", "192", "--json"))
    assert result(cli("inspect", "runs/train", "--json"))["policy.per_view_dim"] == 192


def refused(ran: tuple[int, str, str]) -> str:
    """Return the one line of a refused command."""
    code, out, err = ran
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1, err
    return err


def test_a_missing_dataset_is_one_line(cli: Cli) -> None:
    assert "no dataset at nowhere" in refused(cli("embed", "--dataset", "nowhere"))


def test_a_missing_camera_lists_the_cameras(cli: Cli, dataset: Path) -> None:
    line = refused(cli("embed", "--dataset", dataset, "--set", "dataset.cameras=['wrist']"))
    assert "no camera 'wrist'; its cameras: r_vis, top, front" in line


def test_an_unknown_key_names_the_nearest(cli: Cli) -> None:
    line = refused(cli("train", "--set", "train.step=3"))
    assert "unknown key 'train.step'; did you mean 'steps'?" in line


def test_a_missing_encoder_says_how_to_get_one(
    cli: Cli, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = refused(cli("embed", "--dataset", dataset, "--encoder", "nobody/nothing"))
    assert "hf download nobody/nothing" in line and "--encoder DIR" in line


def test_a_cache_of_another_encoder_is_refused_naming_both(
    cli: Cli, dataset: Path, encoder_dir: Path
) -> None:
    result(cli("embed", "--dataset", dataset, "--encoder", encoder_dir, "--out", "features", "--json"))
    line = refused(cli("train", "--cache", "features", "--encoder", "google/siglip2-base-patch16-256"))
    assert str(encoder_dir) in line and "[encoder] id = google/siglip2-base-patch16-256, but" in line


def test_an_existing_run_is_refused(cli: Cli, dataset: Path, encoder_dir: Path) -> None:
    result(cli("embed", "--dataset", dataset, "--encoder", encoder_dir, "--out", "features", "--json"))
    Path("run/checkpoints").mkdir(parents=True)
    line = refused(cli("train", "--cache", "features", "--encoder", encoder_dir, "--out", "run"))
    assert "run directory run exists; continue it with --resume, or choose another --out" in line


def test_the_command_that_comes_next_can_be_pasted(cli: Cli, tmp_path: Path) -> None:
    demos = write_dataset(tmp_path / "my demos", (2,), (16, 16), 3, cameras={"top": "image"})
    cache = write_cache(tmp_path / "my features")
    policy = tmp_path / "my policy"
    config = VLAAgentConfig(n_emb=16, n_layer=1, n_head=2)
    VLAAgent.for_cache(config, cache.metadata).save_pretrained(policy)
    share = ("share", policy, "--out", tmp_path / "my shared")
    for ran in (("inspect", demos), ("inspect", cache.folder), ("inspect", policy), share):
        *_, last = shlex.split(result(cli(*ran, "--json"))["next"])
        assert last == str(ran[-1])


def test_nothing_to_inspect_says_what_could_be(cli: Cli) -> None:
    assert "vla inspect takes a dataset" in refused(cli("inspect", "nowhere"))


def test_errors_are_json_too_when_asked(cli: Cli) -> None:
    code, out, err = cli("inspect", "nowhere", "--json")
    assert code == 1
    assert json.loads(out)["error"] in err


def test_an_error_that_nobody_reads_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vla", "inspect", "nowhere", "--json"]
    finished = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: ") and finished.stderr.count("\n") == 1
