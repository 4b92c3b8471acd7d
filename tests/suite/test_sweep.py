"""`vla sweep` on a small cache: plans, refusals, a kill in the middle, results, the user's notes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import fake_spec, write_cache

from vla.base.errors import ConfigError, VlaError
from vla.config import PipelineConfig
from vla.inspect import inspect
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.suite.config import read_suite
from vla.suite.folder import SuiteFolder
from vla.suite.lifeline import holder, send
from vla.suite.manifest import read_manifest, write_manifest
from vla.suite.notes import BEGIN, END, write_notes
from vla.suite.plan import RunPlan, plan_runs
from vla.suite.stage import stage_of
from vla.suite.status import read_status, write_status
from vla.suite.sweep import begin, sweep, sweep_status

BASE = """
[encoder]
id = "fake-encoder"
[policy]
cond_dim = 8
n_emb = 16
n_layer = 1
n_head = 2
[train]
steps = 6
batch_size = 8
val_episodes = 1
rollout_every = 0
log_every = 1
val_every = 3
save_every = 3
"""
GRID = '[grid]\n"policy.per_view_dim" = [4, 6]\n'


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cache(tmp_path / "cache", fake_spec(lengths=(12, 9, 10)))
    (tmp_path / "base.toml").write_text(BASE)


def suite_file(text: str = GRID, head: str = "") -> Path:
    path = Path("suite.toml")
    path.write_text(f'name = "small"\nconfig = "base.toml"\ncache = "cache"\n{head}\n{text}')
    return path


def planned(file: Path) -> list[RunPlan]:
    return plan_runs(read_suite(file), file, SuiteFolder(Path("runs/small")))


def test_a_grid_named_runs_and_seeds_become_runs() -> None:
    text = GRID + '[[run]]\nname = "wide"\nset = { policy = { n_emb = 32 } }\n'
    plans = planned(suite_file(text, "seeds = [0, 3]"))
    assert [plan.name for plan in plans] == [
        "per_view_dim-4-seed0",
        "per_view_dim-4-seed3",
        "per_view_dim-6-seed0",
        "per_view_dim-6-seed3",
        "wide-seed0",
        "wide-seed3",
    ]
    assert plans[1].config["policy.per_view_dim"] == 4 and plans[1].config["train.seed"] == 3
    assert plans[-1].config["policy.n_emb"] == 32 and plans[0].config["policy.n_emb"] == 16


def test_the_commands_say_the_same_as_the_resolved_configuration() -> None:
    from vla.config import PipelineConfig

    plan = planned(suite_file(GRID, 'set = { "train.lr" = 1e-3, "train.betas" = [0.9, 0.99] }'))[0]
    sets = [word.removeprefix("--set=") for word in plan.train if word.startswith("--set=")]
    loaded = PipelineConfig.load(Path("base.toml"), {}, sets)
    assert (loaded.train.lr, loaded.train.betas) == (1e-3, (0.9, 0.99))
    assert (loaded.train.lr, list(loaded.train.betas)) == (
        plan.config["train.lr"],
        plan.config["train.betas"],
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[grid]\n"policy.per_view_dims" = [1]', "unknown key 'policy.per_view_dims'"),
        ('[grid]\n"policy.per_view_dim" = []', "has no values"),
        ('[grid]\n"policy.per_view_dim" = [4, 4]', "two runs are called 'per_view_dim-4-seed0'"),
        ('[grid]\n"train.seed" = [1]', "'train.seed' cannot be set for a run"),
        ("seed = [1]", "unknown key 'seed'; did you mean 'seeds'?"),
    ],
)
def test_a_wrong_suite_is_refused_before_anything_starts(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace("?", r"\?")):
        planned(suite_file(text))
    assert not Path("runs").exists()


def test_a_cache_of_another_encoder_is_refused_naming_the_run() -> None:
    with pytest.raises(ConfigError, match=r"run 'x-seed0': \[encoder\] id = other, .*fake-encoder"):
        planned(suite_file('[[run]]\nname = "x"\nset = { "encoder.id" = "other" }'))


def test_a_run_that_was_started_otherwise_is_not_continued() -> None:
    file, folder = suite_file(), SuiteFolder(Path("runs/small"))
    write_manifest(folder, read_suite(file), file, planned(file))
    folder.run("per_view_dim-4-seed0").mkdir(parents=True)
    Path("base.toml").write_text(BASE.replace("steps = 6", "steps = 9"))
    with pytest.raises(VlaError, match=r"was started with train\.steps = 6, now 9 is asked"):
        write_manifest(folder, read_suite(file), file, planned(file))


def test_what_the_user_writes_into_the_notes_is_kept() -> None:
    file, folder = suite_file(), SuiteFolder(Path("runs/small"))
    plans = planned(file)
    write_manifest(folder, read_suite(file), file, plans)
    status = begin(folder, "small", plans)
    write_notes(folder, status)
    text = folder.notes.read_text()
    folder.notes.write_text(f"mine, above\n{text}mine, below\n")
    write_notes(folder, status)
    again = folder.notes.read_text()
    assert again.startswith("mine, above\n") and again.endswith("mine, below\n")
    assert again.count(BEGIN) == again.count(END) == 1 and "| per_view_dim-6-seed0 | queued | 6 |" in again
    folder.notes.write_text("only mine")
    write_notes(folder, status)
    assert folder.notes.read_text().startswith("only mine") and "per_view_dim-6" in folder.notes.read_text()


def test_asking_for_the_status_does_not_undo_what_a_sweep_just_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    file, folder = suite_file(), SuiteFolder(Path("runs/small"))
    write_manifest(folder, read_suite(file), file, planned(file))
    status = begin(folder, "small", planned(file))
    write_status(folder, status)

    @contextmanager
    def exclusive(path: Path) -> Iterator[None]:
        done = {name: run.model_copy(update={"state": "done"}) for name, run in status.runs.items()}
        write_status(folder, status.model_copy(update={"runs": done}))  # by a sweep that ends now
        yield

    monkeypatch.setattr("vla.suite.sweep.exclusive", exclusive)
    assert {run["state"] for run in sweep_status(folder.path)["runs"].values()} == {"done"}
    assert {run.state for run in read_status(folder).runs.values()} == {"done"}


def test_a_damaged_status_says_what_brings_the_sweep_back() -> None:
    file, folder = suite_file(), SuiteFolder(Path("runs/small"))
    folder.path.mkdir(parents=True)
    folder.status.write_text("{")
    with pytest.raises(VlaError, match=r"status\.json cannot be read .*remove it and run the sweep again"):
        begin(folder, "small", planned(file))
    folder.status.unlink()
    assert {run.state for run in begin(folder, "small", planned(file)).runs.values()} == {"queued"}


def test_a_run_folder_without_a_configuration_is_not_deleted() -> None:
    plan, folder = planned(suite_file())[0], SuiteFolder(Path("runs/small"))
    precious = folder.run(plan.name) / "checkpoints/000006/weights"
    precious.parent.mkdir(parents=True)
    precious.touch()
    stage = stage_of(folder, plan, begin(folder, "small", [plan]).runs[plan.name], "cpu")
    assert stage is not None and "--resume" not in stage[1]  # vla train refuses the folder in words
    assert precious.exists()


@pytest.fixture
def nothing_left_running() -> Iterator[None]:
    """End what a test that failed half-way has left: a sweep, and a child that it may have frozen."""
    yield
    for process in STARTED:
        process.kill()
        process.communicate()
    STARTED.clear()
    for lock in Path("runs/small/logs").glob("*.lock"):
        if pid := holder(lock):
            send(pid, signal.SIGKILL)


STARTED: list[subprocess.Popen[str]] = []


def started_sweep(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vla", "sweep", "suite.toml", *arguments]
    pipe = subprocess.PIPE
    STARTED.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
    return STARTED[-1]


def wait_for(process: subprocess.Popen[str], run: RunDirectory, step: int) -> None:
    until = time.monotonic() + 300
    while not any(row["step"] >= step for row in read_metrics(run)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    return dict(json.loads(out))


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left_running")
def test_a_sweep_survives_kills_of_itself_and_of_a_child() -> None:
    Path("base.toml").write_text(BASE.replace("steps = 6", "steps = 90").replace("= 3\n", "= 15\n"))
    file, folder = suite_file(), SuiteFolder(Path("runs/small"))
    first, second = "per_view_dim-4-seed0", "per_view_dim-6-seed0"
    killed = started_sweep("--device", "cpu")
    wait_for(killed, RunDirectory(folder.run(first)), 15)
    os.kill(read_status(folder).runs[first].pid or 0, signal.SIGSTOP)  # so that it is not done too soon
    with pytest.raises(VlaError, match=f"is being written by process {killed.pid}"):
        sweep(file)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    status = read_status(folder).runs
    assert (status[first].state, status[second].state) == ("running", "queued")  # the child lives on
    os.kill(status[first].pid or 0, signal.SIGKILL)
    time.sleep(0.2)
    assert read_status(folder).runs[first].state == "interrupted"

    result = finished(started_sweep("--device", "cpu", "--json"))
    assert {run["state"] for run in result["runs"].values()} == {"done"}
    rows = read_metrics(RunDirectory(folder.run(first)), "train")
    assert [row["step"] for row in rows] == list(range(1, 91))  # gone on with, not begun again or twice
    assert "--resume" in folder.log(first).read_text()
    assert inspect(folder.path)["kind"] == "suite"
    assert read_manifest(folder)["runs"][second]["train"][1:4] == ["-m", "vla", "train"]
    before, left = folder.log(second).read_text(), folder.path / ".status.json.1.tmp"
    left.write_text("half")  # by a kill
    sweep(file)  # nothing left to do
    assert folder.log(second).read_text() == before and not left.exists()


SUITES = {
    "per_view_dim": {"policy.per_view_dim": [96, 192]},
    "lewm": {"policy.n_emb": [384, 256]},
    "trunks": {
        "resnet": {},
        "attnres": {f"policy.trunks.{name}.blocks": "attnres" for name in ("r_vis", "top", "front")},
    },
}
"""What the suites that come with vla compare; those for a CPU the same."""


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "examples/suites").glob("*.toml")))
def test_every_suite_that_comes_with_vla_is_valid(file: Path) -> None:
    suite = read_suite(file)
    named = {run.name: run.set for run in suite.run}
    assert (suite.grid or named) == SUITES[file.stem.removesuffix("_demo")]
    for changes in named.values():
        policy = PipelineConfig.load(file.parent / suite.config, {**suite.set, **changes}, []).policy
        blocks = {trunk["blocks"] for trunk in policy.model_dump()["trunks"].values()}
        assert blocks == {"attnres" if changes else "basic"}
    base = PipelineConfig.load(file.parent / suite.config, suite.set, [])
    assert base.dataset.cameras == ("r_vis", "top", "front")
    if "trunks" in file.stem:
        assert (base.policy.pred_horizon, base.policy.num_action_steps) == (16, 8)
        assert base.train.best == "reward" and 3 * base.policy.model_dump()["per_view_dim"] + 16 == 208
    if "lewm" in file.stem:
        assert base.train.best == "reward" and base.train.rollout_every
        assert base.pretrain.cameras == base.dataset.cameras and base.encoder.id == base.pretrain.out
