"""A task of a plugin whose environment has sensors: recorded by its name, as further columns."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_env import SENSORS_ID

from vla.base.errors import ConfigError, EnvironmentSetupError
from vla.base.family import load_plugins
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.rollout.record.attempt import AttemptRunner
from vla.rollout.record.plan import make_plan
from vla.rollout.record.record import record
from vla.rollout.rollout_config import EnvConfig, RecordConfig
from vla.rollout.worlds.expert import EXPERT_TASKS, find_task

ENV = EnvConfig(id=SENSORS_ID)
LIDAR = {"lidar": {"key": "observation.lidar", "kind": "points"}}
IMU = {"imu": {"key": "observation.imu", "kind": "series"}}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of one episode of 4 frames; its worker is told of the plugin."""
    load_plugins(("fake_env",))
    out = tmp_path_factory.mktemp("recording") / "demos"
    record(ENV, RecordConfig(task="count_sensors", episodes=1, out=str(out), workers=1, image_size=(16, 16)))
    return out


def test_a_plugins_task_is_found_by_name_beside_our_own(recording: Path) -> None:
    assert find_task("count_sensors").env_id == SENSORS_ID.split(":")[1]
    assert {"aloha_transfer_cube", "count_sensors", "sim_transfer"} <= EXPERT_TASKS.members().keys()
    with pytest.raises(
        ConfigError, match="no task with an expert 'count_sensor'; did you mean 'count_sensors'"
    ):
        find_task("count_sensor")


def test_sensors_are_columns_of_a_recording(recording: Path) -> None:
    table = pq.read_table(recording / "data/chunk-000/file-000.parquet")
    lidar, imu = (np.array(table[f"observation.{name}"].to_pylist()) for name in ("lidar", "imu"))
    assert (lidar.shape, imu.shape) == ((4, 8, 4), (4, 5, 6))
    np.testing.assert_allclose(lidar[:, 0, 0], [0, 0.1, 0.2, 0.3])


def test_numbers_that_are_not_finite_are_the_environments_with_key_and_step() -> None:
    load_plugins(("fake_env",))
    env = EnvConfig(id=SENSORS_ID, kwargs={"trouble": "nan"})
    runner = AttemptRunner(make_plan(env, RecordConfig(task="count_sensors", seed=7, image_size=(16, 16))))
    with pytest.raises(
        EnvironmentSetupError,
        match=r"'vla-tests/Sensors-v0' gave 'lidar'\[3, 1\] = nan at step 2 of attempt 1, seed 8",
    ):
        runner.run(1)


def test_what_an_environment_raises_ends_a_recording_in_one_line(tmp_path: Path) -> None:
    load_plugins(("fake_env",))
    env = EnvConfig(id=SENSORS_ID, kwargs={"trouble": "raised"})
    config = RecordConfig(task="count_sensors", episodes=1, out=str(tmp_path / "demos"), workers=1)
    told = (
        r"'count_sensors' raised ValueError: the joint is stuck at .*fake_env\.py:\d+; finished attempts are"
    )
    with pytest.raises(EnvironmentSetupError, match=told):
        record(env, config)


def test_stage_one_reads_recorded_sensors(recording: Path) -> None:
    config = DatasetConfig.model_validate({"path": str(recording), "streams": LIDAR | IMU})
    source = open_source(config, workers=1)
    shapes = {stream.name: (stream.kind, stream.shape) for stream in source.streams}
    assert (shapes["lidar"], shapes["imu"]) == (("points", (8, 4)), ("series", (5, 6)))
    block = next(source.read(range(4), block=4))
    np.testing.assert_allclose(block.streams["imu"][:, 0, 0], [0, 0.05, 0.1, 0.15], rtol=1e-6)
    assert {name: array.shape for name, array in block.streams.items()} == {
        "top": (4, 16, 16, 3),
        "lidar": (4, 8, 4),
        "imu": (4, 5, 6),
        "state": (4, 3),
        "action": (4, 3),
    }
