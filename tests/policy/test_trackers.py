"""Trackers: the same figures in each one that is installed, offline, and where they went is noted."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vla.base.errors import ConfigError
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import RunLog, read_metrics
from vla.policy.training.trackers import open_tracker, require_tracker
from vla.policy.training.trackers.tracker import Location, OnStderr, Tracker, note_location, read_locations


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run directory on a machine without accounts."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "SWANLAB_API_KEY", "SWANLAB_MODE", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return RunDirectory.create(tmp_path / "run")


def tracked(run: RunDirectory, name: str) -> Location:
    """Log three steps; return where the tracker says they are."""
    config: dict[str, Any] = {"train": {"lr": 1e-3}}
    with RunLog(run, 0, open_tracker(name, run, 0, config)) as log:
        for step in (1, 2, 3):
            log.write("train", step, {"loss": 1.0 / step})
    return read_locations(run.path)[name]


def installed(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is not installed ({error}); pip install 'vla[{name}]'")


def test_none_writes_metrics_jsonl_alone(run: RunDirectory) -> None:
    with RunLog(run, 0, open_tracker("none", run, 0, {})) as log:
        log.write("train", 1, {"loss": 1.0})
    assert [path.name for path in run.path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_holds_the_figures_of_metrics_jsonl(run: RunDirectory) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    location = tracked(run, "tensorboard")
    assert location.path is not None
    events = EventAccumulator(location.path).Reload()
    found = {event.step: event.value for event in events.Scalars("train/loss")}
    assert found == {row["step"]: pytest.approx(row["loss"]) for row in read_metrics(run, "train")}


def test_wandb_writes_an_offline_run_without_an_account(run: RunDirectory) -> None:
    installed("wandb")
    location = tracked(run, "wandb")
    assert (location.mode, location.url) == ("offline", None)
    assert list(Path(location.path or "").glob("run-*.wandb"))


def test_swanlab_writes_an_offline_run_without_an_account(run: RunDirectory) -> None:
    installed("swanlab")
    location = tracked(run, "swanlab")
    assert location.mode == "offline"
    assert [path for path in Path(location.path or "").rglob("*") if path.is_file()]


def test_trackio_writes_a_local_database(run: RunDirectory) -> None:
    installed("trackio")
    location = tracked(run, "trackio")
    assert location.mode == "local" and Path(location.path or "").is_file()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "swanlab", "trackio"])
def test_what_a_tracker_prints_stays_off_stdout(
    run: RunDirectory, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(name)
    tracked(run, name)
    assert capsys.readouterr().out == ""


def test_a_talkative_tracker_is_heard_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    class Talkative(Tracker):
        location = Location(mode="local", version="1")

        def log(self, figures: Mapping[str, float], step: int) -> None:
            print("logged")

        def close(self) -> None:
            print("closed")

    def open_loudly() -> Tracker:
        print("opened")
        return Talkative()

    tracker = OnStderr(open_loudly)
    tracker.log({}, 1)
    tracker.close()
    assert capsys.readouterr() == ("", "opened\nlogged\nclosed\n")


def test_locations_of_several_trackers_stand_side_by_side(run: RunDirectory) -> None:
    note_location(run, "a", Location(mode="local", version="1", path="here"))
    note_location(run, "b", Location(mode="online", version="2", url="https://there"))
    noted = json.loads((run.path / "trackers.json").read_text())
    assert (noted["a"]["path"], noted["b"]["url"]) == ("here", "https://there")


def test_a_missing_package_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)
    with pytest.raises(ConfigError, match=r"tracker 'trackio' needs .* pip install 'vla\[trackio\]'"):
        require_tracker("trackio")
