"""Fixtures: one small dataset, encoder and cache with task texts for the whole session."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_language import Bench, make_bench
from fakes import write_dataset, write_vision_checkpoint

from vla.cli import main

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # commands that tests start share the cores
torch.set_num_threads(1)  # small tensors: threads only wait for each other


@pytest.fixture(scope="session", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Spare trainings their picture, half a second each; tests/policy/test_plots.py draws it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vla.policy.training.plots.plot_training", lambda run: run.path)
        yield


@pytest.fixture
def vla(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a command with --json, which must succeed, and returns what it printed."""

    def run(*words: object) -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, words), "--json"])
        captured = capsys.readouterr()
        assert not stopped.value.code, captured.err
        return dict(json.loads(captured.out))

    return run


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of two episodes of 5 and 4 frames; read it, do not change it."""
    return write_dataset(tmp_path_factory.mktemp("dataset") / "demos")


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small vision-only checkpoint; read it, do not change it."""
    return write_vision_checkpoint(tmp_path_factory.mktemp("encoder") / "siglip-small")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return two tasks that only their words tell apart, embedded; camera `top`, 3 state, 2 actions."""
    return make_bench(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="session")
def trained(bench: Bench) -> tuple[Path, float]:
    """Return a policy of both tasks, which takes their words, and its loss on held-out episodes."""
    return bench.train("with", **{"policy.language": True})
