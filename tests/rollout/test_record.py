"""The recorder: which attempts run, what it refuses, and that interruption leaves no trace."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vla.base.errors import ConfigError, DatasetError, EnvironmentSetupError, VlaError
from vla.base.lock import exclusive
from vla.cli import main
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.rollout.record.attempt import Outcome, encode_attempt
from vla.rollout.record.attempt_pool import AttemptPool
from vla.rollout.record.plan import make_plan
from vla.rollout.record.record import attempts_missing, record
from vla.rollout.record.staging import Staging
from vla.rollout.rollout_config import EnvConfig, RecordConfig
from vla.rollout.worlds.sim_transfer.world import INSTRUCTION, MAX_EPISODE_STEPS

ENV = EnvConfig(kwargs={"render_height": 24, "render_width": 32, "cameras": ["top", "front"]})


def small_config(out: Path, workers: int = 2) -> RecordConfig:
    return RecordConfig(episodes=2, image_size=(16, 16), out=str(out), workers=workers)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of two episodes, made by two workers; read it, do not change it."""
    out = tmp_path_factory.mktemp("recording") / "demos"
    report = record(ENV, small_config(out))
    assert (report.path, report.episodes, report.frames) == (out, 2, 2 * MAX_EPISODE_STEPS)
    assert (report.attempts, report.failures, report.resumed_episodes) == (2, 0, 0)
    return out


def test_stage_one_can_read_a_recording(recording: Path) -> None:
    source = open_source(DatasetConfig(path=str(recording)), workers=1)
    assert source.camera_names == ("top", "front")
    assert [(e.length, e.task) for e in source.episodes] == [(MAX_EPISODE_STEPS, INSTRUCTION)] * 2
    block = next(source.read(range(MAX_EPISODE_STEPS - 2, MAX_EPISODE_STEPS + 2), block=4))
    assert {block.streams[camera].shape for camera in ("top", "front")} == {(4, 16, 16, 3)}
    np.testing.assert_array_equal(block.episode_index, [0, 0, 1, 1])
    # An action is a command for the step that begins with its state: near to it, never equal.
    assert 0 < np.abs(block.streams["action"] - block.streams["state"])[:, [0, 8]].max() < 0.2


def test_a_recording_says_how_it_was_made(recording: Path) -> None:
    made = json.loads((recording / "meta/vla.json").read_bytes())
    assert made["env"] == {**ENV.model_dump(mode="json"), "id": "vla/SimTransfer-v0"}
    assert made["episodes"] == [{"seed": 0, "success": True}, {"seed": 1, "success": True}]
    assert made["render_quality"]["shadowsize"] == 0
    assert made["noise"] == 1.0


def test_rewards_and_success_are_those_of_the_episode(recording: Path) -> None:
    table = pq.read_table(
        recording / "data/chunk-000/file-000.parquet", columns=["next.reward", "next.success"]
    )
    reward, success = (table[name].to_numpy() for name in table.column_names)
    assert set(reward) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert success[MAX_EPISODE_STEPS - 1]
    assert not success[MAX_EPISODE_STEPS]


def test_nothing_is_left_beside_a_finished_recording(recording: Path) -> None:
    assert [path.name for path in recording.parent.iterdir()] == ["demos"]


@pytest.mark.slow
def test_a_killed_recording_goes_on_to_the_same_bytes(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "demos"
    code = (
        "from test_record import *\n"
        f"if __name__ == '__main__': record(ENV, small_config(Path({str(out)!r}), workers=1))"
    )
    script = tmp_path / "main.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:3]))}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    first = tmp_path / "demos.partial/attempts/000000.parquet"
    wait_until(first.exists)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    wait_until(lambda: not any(is_alive(worker) for worker in workers))
    assert sorted(path.name for path in first.parent.iterdir()) == ["000000.parquet"]
    report = record(ENV, small_config(out, workers=1))
    assert report.resumed_episodes == 1
    assert content(out) == content(recording)


def wait_until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_attempts_that_are_missing_replace_failures_in_order() -> None:
    assert attempts_missing({}, episodes=2) == [0, 1]
    assert attempts_missing({0: True, 1: False}, episodes=2) == [2]
    assert attempts_missing({1: True, 2: True}, episodes=2) == [0]
    assert attempts_missing({0: False, 1: True, 2: True, 3: True}, episodes=2) == []


def test_an_expert_that_always_fails_is_given_up() -> None:
    with pytest.raises(DatasetError, match="only 0 of 8 attempts succeeded, 2 are wanted; lower --set"):
        attempts_missing(dict.fromkeys(range(8), False), episodes=2)


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    config = RecordConfig(task="sim_tranfer", out=str(tmp_path / "demos"))
    with pytest.raises(
        ConfigError, match="no task with an expert 'sim_tranfer'; did you mean 'sim_transfer'"
    ):
        record(ENV, config)


def test_the_working_directory_is_no_place_for_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=r"'\.' is the working directory; name a new one"):
        record(ENV, small_config(Path()))


def test_an_environment_without_an_expert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"acts in vla/SimTransfer-v0, but env\.id is 'CartPole-v1'"):
        record(EnvConfig(id="CartPole-v1"), small_config(tmp_path / "demos"))


ALOHA = {"task": "aloha_transfer_cube"}


def test_the_environment_of_another_task_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path / "demos").model_copy(update=ALOHA)
    with pytest.raises(ConfigError, match=r"vla record --task aloha_transfer_cube --set env\.id="):
        record(ENV, config)


def test_a_task_whose_package_is_missing_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gym_aloha.env", None)
    config = small_config(tmp_path / "demos").model_copy(update=ALOHA)
    with pytest.raises(EnvironmentSetupError, match=r"need the package gym-aloha .*; run make aloha") as said:
        record(EnvConfig(id="vla/AlohaTransferCube-v0"), config)
    assert "\n" not in str(said.value)


def test_an_unknown_argument_of_the_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'height'.*valid names: render_height"):
        record(EnvConfig(kwargs={"height": 64}), small_config(tmp_path / "demos"))


def test_an_existing_data_set_is_not_overwritten(recording: Path) -> None:
    with pytest.raises(
        DatasetError, match="demos already exists; continue it with --append, or choose another --out"
    ):
        record(ENV, small_config(recording))


@pytest.mark.slow
def test_a_recording_that_grows_has_the_bytes_of_one_made_at_once(recording: Path, tmp_path: Path) -> None:
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    shutil.copytree(recording, grown)
    more = {"episodes": 4, "append": True}
    report = record(ENV, small_config(grown).model_copy(update=more))
    assert (report.episodes, report.frames, report.resumed_episodes) == (4, 4 * MAX_EPISODE_STEPS, 2)
    record(ENV, small_config(whole).model_copy(update=more))  # nothing is there yet: no error
    assert content(grown) == content(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grown", "whole"]


def leave_unfinished(env: EnvConfig, config: RecordConfig) -> None:
    """Leave what a killed recorder leaves after one attempt, a failed one."""
    outcome = Outcome(seed=0, success=False, max_stage=0, histograms={})
    Staging(Path(config.out), make_plan(env, config)).save(0, encode_attempt({}, outcome))


def test_an_unfinished_recording_with_other_settings_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path / "demos")
    leave_unfinished(ENV, config)
    with pytest.raises(
        DatasetError, match=r"unfinished recording with noise = 1\.0, this one has 0\.5; delete it"
    ):
        record(ENV, config.model_copy(update={"noise": 0.5}))


def test_a_setting_of_the_environment_that_differs_is_named(tmp_path: Path) -> None:
    config = small_config(tmp_path / "demos")
    leave_unfinished(EnvConfig(kwargs={"cameras": ("top",)}), config)
    with pytest.raises(DatasetError, match=r"env\.kwargs\.cameras = \['top'\], this one has \['front'\]"):
        record(EnvConfig(kwargs={"cameras": ("front",)}), config)


def test_a_machine_that_cannot_render_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(EnvironmentSetupError, match="apt-get install"):
        record(ENV, small_config(tmp_path / "demos"))


def test_a_staging_folder_without_attempts_binds_to_nothing(tmp_path: Path) -> None:
    config = small_config(tmp_path / "demos")
    Staging(tmp_path / "demos", make_plan(ENV, config))
    Staging(tmp_path / "demos", make_plan(ENV, config.model_copy(update={"noise": 0.5})))
    plan = json.loads((tmp_path / "demos.partial/plan.json").read_bytes())
    assert plan["noise"] == 0.5


def test_another_recorder_at_work_is_named(tmp_path: Path) -> None:
    with exclusive(tmp_path / "demos"), pytest.raises(VlaError, match=f"by process {os.getpid()}"):
        record(ENV, small_config(tmp_path / "demos"))


def test_cameras_are_not_renamed_while_recording(tmp_path: Path) -> None:
    env = EnvConfig(cameras={"wrist": "r_vis"})
    with pytest.raises(ConfigError, match=r"env\.cameras renames .*dataset\.cameras"):
        record(env, small_config(tmp_path / "demos"))


@pytest.mark.slow
def test_a_signal_lets_running_attempts_end_and_says_how_to_go_on(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    kwargs = "{ render_height = 24, render_width = 32, cameras = ['top', 'front'] }"
    command = ["record", "--episodes", "2", "--workers", "1", "--out", "demos"]
    command += ["--set", f"env.kwargs={kwargs}", "--set", "record.image_size=[16, 16]"]
    start = AttemptPool.start

    def start_and_interrupt(pool: AttemptPool, number: int) -> None:
        start(pool, number)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(AttemptPool, "start", start_and_interrupt)
        main(command)
    assert stopped.value.code == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("stopped by SIGINT; 1 finished attempts are kept; go on: ")
    assert not Path("demos").exists()
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(said.partition("go on: ")[2])[1:])
    assert ended.value.code in (0, None)
    found = content(Path("demos"))
    del found["pipeline.toml"]  # only the command line writes it
    assert found == content(recording)
