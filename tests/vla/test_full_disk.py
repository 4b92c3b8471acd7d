"""A disk that fills up: one line with what to do, and what was done is not done again."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_faults import digests, file_size_limit
from fakes import fake_spec, write_cache

from vla.base.errors import WriteError
from vla.base.lock import exclusive
from vla.cli import main
from vla.policy.training.checkpoint import TrainingState, save_checkpoint
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import RunLog, read_metrics
from vla.policy.training.trackers.tensorboard import TensorBoardTracker

SETTINGS = (
    *("policy.per_view_dim=4", "policy.cond_dim=8", "policy.n_emb=16", "policy.n_layer=1", "policy.n_head=2"),
    *("train.steps=4", "train.save_every=2", "train.log_every=1", "train.val_episodes=1"),
    *("train.batch_size=4", "train.rollout_every=0", "train.device=cpu"),
)


def vla_train(out: Path, *more: str) -> int:
    """Run the command; return its exit code."""
    named = ["--cache", str(out.parent / "cache"), "--encoder", "fake-encoder", "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main(["train", *named, *[f"--set={setting}" for setting in SETTINGS], *more])
    return int(ended.value.code or 0)


def losses(run: Path) -> list[tuple[int, str, float]]:
    return [(row["step"], row["kind"], row["loss"]) for row in read_metrics(RunDirectory(run))]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_cache(tmp_path / "cache", fake_spec(lengths=(6, 5)))
    return tmp_path / "run"


def refuse_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(run: RunDirectory, state: TrainingState) -> None:
        with file_size_limit(100 if state.step == 4 else 1 << 30):
            save_checkpoint(run, state)

    monkeypatch.setattr("vla.policy.training.trainer.save_checkpoint", full)


def refuse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    write = RunLog.write

    def full(self: RunLog, kind: str, step: int, figures: dict[str, float]) -> None:
        if step == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, kind, step, figures)

    monkeypatch.setattr(RunLog, "write", full)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(refuse_weights, "File too large"), (refuse_figures, "No space left on device")],
)
def test_training_says_how_to_go_on_and_ends_as_if_nothing_had_been(
    fault: Callable[[pytest.MonkeyPatch], None],
    reason: str,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as full:
        fault(full)
        assert vla_train(out) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert reason in error
    assert error.endswith("make room or change --out, then run the same command with --resume")
    kept = digests(out / "checkpoints/000002")
    assert vla_train(out, "--resume") == 0
    assert digests(out / "checkpoints/000002") == kept
    assert vla_train(whole := out.with_name("whole")) == 0
    assert losses(out) == losses(whole)
    weights = "checkpoints/000004/pretrained_model/model.safetensors"
    assert (out / weights).read_bytes() == (whole / weights).read_bytes()
    assert json.loads((out / "checkpoints/last/training_state/training_step.json").read_text()) == {"step": 4}


def test_tensorboards_thread_leaves_the_news_to_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory.create(tmp_path / "run")
    tracker = TensorBoardTracker(run, 0)
    with file_size_limit(100):
        with pytest.raises(OSError, match="File too large"):
            for step in range(10_000):
                tracker.log({"loss": 1.0}, step)
        with pytest.raises(OSError, match="File too large"):
            tracker.close()
    assert "Traceback" not in capsys.readouterr().err


def test_no_room_for_the_name_of_a_lock_s_holder_is_one_line(tmp_path: Path) -> None:
    place = rf"{tmp_path}/cache cannot be written .*make room"
    with file_size_limit(0), pytest.raises(WriteError, match=place), exclusive(tmp_path / "cache"):
        pytest.fail("it was held")
    assert not list(tmp_path.iterdir())
