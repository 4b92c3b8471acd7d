"""A recording is continued: same bytes, files that fill up, kills, and what is refused."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_env import SENSORS_ID
from test_record import content

from vla.base.errors import DatasetError
from vla.base.family import load_plugins
from vla.embed.datasets.lerobot import writer
from vla.rollout.record.record import record
from vla.rollout.record.staging import restore
from vla.rollout.rollout_config import EnvConfig, RecordConfig

ENV = EnvConfig(id=SENSORS_ID)


def config(out: Path, episodes: int, **changes: object) -> RecordConfig:
    values = {"task": "count_sensors", "image_size": (16, 16), "workers": 1, "append": True}
    return RecordConfig.model_validate({**values, "out": str(out), "episodes": episodes, **changes})


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of two short episodes with sensors; read it, do not change it."""
    load_plugins(("fake_env",))
    out = tmp_path_factory.mktemp("recording") / "demos"
    record(ENV, config(out, 2))
    return out


@pytest.fixture
def grown(recording: Path, tmp_path: Path) -> Path:
    """Return a copy of it that may grow."""
    return shutil.copytree(recording, tmp_path / "demos")


@pytest.mark.slow
def test_sensors_are_continued_and_files_fill_up_alike(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FILE_MEGABYTES", 0.003)
    whole = tmp_path / "whole"
    record(ENV, config(grown, 5))
    record(ENV, config(whole, 5))
    assert len(list(whole.glob("data/chunk-000/*.parquet"))) > 1
    assert content(grown) == content(whole)


def test_a_failure_that_was_left_out_is_not_run_again(grown: Path) -> None:
    made_by = json.loads((grown / "meta/vla.json").read_bytes())
    made_by["episodes"][1]["seed"] = 3  # as if attempts 1 and 2 had failed
    (grown / "meta/vla.json").write_text(json.dumps(made_by))
    report = record(ENV, config(grown, 3))
    assert (report.attempts, report.failures) == (5, 2)
    seeds = [row["seed"] for row in json.loads((grown / "meta/vla.json").read_bytes())["episodes"]]
    assert seeds == [0, 3, 4]


def test_a_recording_that_is_long_enough_stays_as_it_is(grown: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in grown.rglob("*")}
    report = record(ENV, config(grown, 2))
    assert (report.episodes, report.frames, report.attempts, report.resumed_episodes) == (2, 8, 2, 2)
    assert {path: path.stat().st_mtime_ns for path in grown.rglob("*")} == before


def test_a_kill_while_old_and_new_change_places_loses_nothing(grown: Path, recording: Path) -> None:
    before = grown.with_name("demos.partial") / "before"
    before.parent.mkdir()
    grown.rename(before)
    restore(grown)
    assert content(grown) == content(recording)
    grown.rename(before)
    with pytest.raises(DatasetError, match=r"already exists; continue it with --append"):
        record(ENV, config(grown, 3, append=False))
    assert content(grown) == content(recording)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"episodes": 1}, r"has 2 episodes already, 1 are asked for; --episodes counts all"),
        (
            {"noise": 0.5},
            r"was recorded with noise = 1\.0, this one has 0\.5; choose another --out, and train on",
        ),
        ({"seed": 7}, r"was recorded with seed = 0, this one has 7"),
    ],
)
def test_what_cannot_be_continued_is_refused(grown: Path, change: dict[str, object], words: str) -> None:
    before = content(grown)
    with pytest.raises(DatasetError, match=words):
        record(ENV, config(grown, **{"episodes": 3, **change}))  # type: ignore[arg-type]
    assert content(grown) == before
    assert not grown.with_name("demos.partial").exists()


def test_a_dataset_that_was_not_recorded_here_or_was_changed_is_refused(grown: Path) -> None:
    path = grown / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 4), path)
    with pytest.raises(DatasetError, match=r"has 1 episodes, meta/vla\.json lists 2: it was changed"):
        record(ENV, config(grown, 3))
    (grown / "meta/vla.json").unlink()
    with pytest.raises(DatasetError, match="only what vla record made can be continued"):
        record(ENV, config(grown, 3))
