"""The whole path: frames, an encoder trained on them, its cache, a policy on that, and live."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_env import ENV_ID
from fakes import CAMERAS, write_cache

import vla as library
from vla.base.errors import ConfigError
from vla.cli import main
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics

Vla = Callable[..., dict[str, Any]]
SMALL = [
    "--set=pretrain.image_size=16",
    "--set=pretrain.patch=8",
    "--set=pretrain.width=64",
    "--set=pretrain.depth=1",
    "--set=pretrain.dim=192",
    "--set=pretrain.predictor_depth=1",
    "--set=pretrain.predictor_heads=1",
    "--set=pretrain.predictor_mlp=16",
    "--set=pretrain.history=2",
    "--set=pretrain.frameskip=1",
    "--set=pretrain.batch_size=2",
    "--set=pretrain.val_episodes=0",
    "--tracker=none",
    "--device=cpu",
]
POLICY = [f"--set=policy.{key}" for key in ("cond_dim=208", "n_emb=16", "n_layer=1", "n_head=2")]


def failing(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must be refused, and return its line."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, words)])
    assert stopped.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.slow
def test_frames_become_an_encoder_its_features_a_policy_and_that_drives(
    vla: Vla,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    order = '--set=dataset.cameras=["r_vis", "top", "front"]'
    size = "--set=encoder.image_size=[16, 16]"
    vla("embed", "--dataset", dataset, "--encoder", "pixels", size, order, "--out", "frames")
    made = vla("pretrain", "lewm", "--cache", "frames", "--out", "own", "--steps", 2, *SMALL)
    assert (made["steps"], made["resumed_from"]) == (2, 0)
    assert [row["step"] for row in read_metrics(RunDirectory(Path("own")), "train")] == [2]

    refused = failing(capsys, "pretrain", "lewm", "--out", "own", "--resume", "--set=pretrain.lr=1")
    assert "was begun with pretrain.lr = 5e-05, not 1.0" in refused
    assert "exists; continue it with --resume" in failing(
        capsys, "pretrain", "lewm", "--cache", "frames", "--out", "own", *SMALL
    )
    assert vla("pretrain", "lewm", "--out", "own", "--resume")["resumed_from"] == 2
    assert library.pretrain("lewm", "frames", "own", resume=True).resumed_from == 2
    found = vla("inspect", "own")
    assert found["kind"] == "pretraining run (lewm)" and found["cameras"] == list(CAMERAS)
    assert vla("verify", "own")["problems"] == []

    cache = vla(
        "embed", "--dataset", dataset, "--encoder", "own", order, "--device", "cpu", "--out", "features"
    )
    described = vla("inspect", cache["cache"])
    assert described["streams"][0] == "lewm (tokens, float16 [1, 192])"
    vla(
        *(
            "train",
            "--cache",
            "features",
            "--out",
            "run",
            "--steps",
            1,
            "--per-view-dim",
            192,
            "--device",
            "cpu",
        ),
        *(
            "--device=cpu",
            "--set=train.rollout_every=0",
            "--set=train.val_episodes=0",
            "--tracker=none",
            *POLICY,
        ),
    )
    policy = vla("inspect", "run")
    assert policy["policy.raw_per_step_cond_dim"] == policy["policy.per_step_cond_dim"] == 208
    driven = vla(
        "rollout", "run", "--env", ENV_ID, "--episodes", 1, "--device", "cpu", "--set=rollout.videos=0"
    )
    assert len(driven["per_episode"]) == 1


def test_a_cache_without_frames_is_refused_naming_the_command_that_makes_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cache(tmp_path / "features")
    line = failing(capsys, "pretrain", "lewm", "--cache", tmp_path / "features", "--out", tmp_path / "run")
    assert "holds no frames, but r_vis (tokens, float16 [1, 8])" in line
    assert "vla embed --dataset data/fake --encoder pixels --out FRAMES" in line
    assert not (tmp_path / "run/pipeline.toml").exists()


def test_a_process_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vla.base.distributed import World
    from vla.config import PipelineConfig
    from vla.stages import pretrain

    monkeypatch.setattr(World, "join", lambda: World(rank=0, size=2))
    with pytest.raises(ConfigError, match="runs in one process"):
        pretrain(PipelineConfig())
