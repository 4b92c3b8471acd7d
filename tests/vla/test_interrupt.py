"""SIGINT and SIGTERM: finish what is at work, exit with the shell's code, say how to go on."""

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_faults import digests
from fakes import fake_spec, write_cache, write_dataset
from safetensors.torch import load_file

from vla.base.interrupt import Interrupted, deferred, interruptible
from vla.base.lock import exclusive
from vla.cache.part_writer import PartWriter
from vla.cli import main
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.trainer import Trainer

SMALL = ["policy.cond_dim=16", "policy.n_emb=16", "policy.n_layer=1", "policy.n_head=2", "train.device=cpu"]
SMALL += ["train.batch_size=8", "train.val_episodes=1", "train.rollout_every=0", "train.log_every=4"]
SMALL += ["train.val_every=5", "train.steps=12"]
TRAIN = ["train", "--cache", "cache", "--encoder", "fake-encoder", *[f"--set={setting}" for setting in SMALL]]


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def after_calls(
    patch: pytest.MonkeyPatch, owner: type, name: str, calls: int, act: Callable[[], object]
) -> None:
    """Let something happen after a method has been called so often."""
    method, count = getattr(owner, name), [0]

    def wrapped(self: Any, *arguments: Any) -> Any:
        result = method(self, *arguments)
        count[0] += 1
        if count[0] == calls:
            act()
        return result

    patch.setattr(owner, name, wrapped)


def ended(arguments: list[str]) -> int:
    """Run a command; return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0)


def test_the_first_signal_waits_and_the_second_does_not() -> None:
    with interruptible(), deferred() as signals:
        send(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(Interrupted):
            send(signal.SIGINT)
        with pytest.raises(Interrupted, match="3 shards") as stopped:
            signals.stop_if_asked("3 shards")
    assert stopped.value.exit_code == 143


def test_what_can_be_done_again_does_not_wait() -> None:
    with interruptible(), deferred() as signals, pytest.raises(Interrupted), signals.at_once():
        send(signal.SIGTERM)


def test_outside_of_the_command_line_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with deferred():
        assert signal.getsignal(signal.SIGTERM) is before
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_embedding_finishes_the_shard_and_says_how_to_go_on(
    number: signal.Signals,
    code: int,
    encoder_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    demos = write_dataset(Path("demos"), (5, 4), (16, 16), cameras={"top": "image"})
    command = ["embed", "--dataset", str(demos), "--encoder", str(encoder_dir), "--device", "cpu"]
    command += ["--set", "cache.shard_frames=3"]
    assert ended([*command, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        after_calls(patch, PartWriter, "write", 2, lambda: send(number))
        assert ended([*command, "--out", "out"]) == code
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"stopped by {number.name}; 2 shards of this run are kept, and all before it; go on: "
    )
    assert len(list(Path("out").rglob("*.safetensors"))) == 2
    assert ended(shlex.split(said.partition("go on: ")[2])[1:]) == 0
    (out,), (whole,) = (list(Path(name).glob("demos-*")) for name in ("out", "whole"))
    assert digests(out) == digests(whole)


def test_training_writes_a_checkpoint_and_goes_on_to_the_same_losses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cache(Path("cache"), fake_spec(lengths=(12, 9, 10)))
    assert ended([*TRAIN, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        after_calls(patch, Trainer, "step", 6, lambda: send(signal.SIGTERM))  # between two log lines
        assert ended([*TRAIN, "--out", "run", "--json"]) == 143
    captured = capsys.readouterr()
    told = json.loads(captured.out.splitlines()[-1])
    assert (told["stopped"], told["kept"]) == ("SIGTERM", "step 6 of 12 is saved")
    assert ended([word for word in shlex.split(told["next"])[1:] if word != "--json"]) == 0
    rows = [
        [
            (row["step"], row["kind"], row["loss"], row.get("grad_norm"))
            for row in read_metrics(RunDirectory(Path(run)))
        ]
        for run in ("whole", "run")
    ]
    assert rows[0] == rows[1]
    assert {step for step, kind, *_ in rows[0] if kind == "train"} == {4, 8, 12}
    for name in ("pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors"):
        expected, found = (load_file(Path(run, "checkpoints/000012", name)) for run in ("whole", "run"))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_run_that_is_being_trained_is_not_trained_by_another(capsys: pytest.CaptureFixture[str]) -> None:
    write_cache(Path("cache"), fake_spec(lengths=(12, 9, 10)))
    with exclusive(Path("run")):
        assert ended([*TRAIN, "--out", "run"]) == 1
    assert f"run is being written by process {os.getpid()}" in capsys.readouterr().err


def test_a_run_killed_before_its_configuration_was_written_can_be_begun_again() -> None:
    write_cache(Path("cache"), fake_spec(lengths=(12, 9, 10)))
    Path("run").mkdir()
    Path("run/.pipeline.toml.123.tmp").write_text("[train]\n")
    assert ended([*TRAIN, "--out", "run", "--steps", "1"]) == 0
    assert not list(Path("run").glob(".*"))
