"""What lies at a path is named, whether vla reads it or not, with what helps."""

from pathlib import Path

import h5py
import pytest
from fake_datasets import write_dataset, write_hdf5
from fake_formats import write_pusht, write_robomimic

from vla.base.errors import DatasetError
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.looking import config_to_look
from vla.embed.datasets.recognise import is_dataset
from vla.inspect import inspect

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 82515\n"


def refused(path: Path, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        open_source(DatasetConfig(path=str(path), fps=10), workers=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["features.json", "dataset_info.json"], "is an RLDS dataset .* openx2lerobot"),
        (["1.0.0/bridge-train.tfrecord-00000-of-00009"], "is an RLDS dataset"),
        (["session_0.mcap"], "is an MCAP recording, .* package mcap"),
        (["bag_0/metadata.yaml", "bag_0/bag_0.db3"], "is a ROS bag, .* package rosbags"),
        (["run.bag"], "is a ROS bag"),
        (["data/main_data.hdf5"], "is a Minari dataset, .* open it with minari"),
        (["meta_data/info.json", "train/state.json"], r"is a LeRobotDataset of version 1, .*v1_to_v2\.py"),
        (["data/frames.lance/_versions/1.manifest"], "is a LeRobotDataset in Lance tables"),
    ],
)
def test_formats_that_vla_does_not_read_are_named_with_the_way_to_one(
    names: list[str], what: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    refused(tmp_path, what)
    with pytest.raises(DatasetError, match=what):
        inspect(tmp_path)


def test_a_single_recording_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "session.mcap").touch()
    refused(tmp_path / "session.mcap", r"session\.mcap is an MCAP recording")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("traj_0/actions", "holds trajectories of ManiSkill"),
        ("action", "looks like an episode of ACT; name such files episode_0.hdf5"),
        ("measurements", "holds measurements; vla reads HDF5 files called episode_0.hdf5"),
    ],
)
def test_other_hdf5_files_are_described(name: str, message: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "demo.hdf5", "w") as file:
        file[name] = [1.0]
    refused(tmp_path, message)
    refused(tmp_path / "demo.hdf5", message)


def test_what_is_no_dataset_says_what_helps(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", r"there is no such directory or file\); record one")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "the folder is empty; record some: vla record")
    (tmp_path / "empty/notes.txt").touch()
    refused(tmp_path / "empty", r"neither meta/info\.json \(LeRobot\), nor .* record some")


def test_a_file_of_a_dataset_leads_to_its_folder(tmp_path: Path) -> None:
    demos = write_dataset(tmp_path / "demos", (2,), (8, 8), 2)
    refused(demos / "meta/info.json", rf"it is a file; name the folder .* --dataset {demos}$")
    refused(demos / "data/chunk-000/file-000.parquet", rf"--dataset {demos}$")


def test_a_dataset_one_folder_deeper_is_pointed_at(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "all/a", (2,), (8, 8))
    refused(tmp_path / "all", rf"there is one in it; name it: --dataset {tmp_path / 'all/a'}$")
    write_pusht(tmp_path / "all/b.zarr")
    refused(tmp_path / "all", "one of the 2 there")


def test_subsets_are_for_robomimic(tmp_path: Path) -> None:
    demos = write_hdf5(tmp_path / "demos", (2,), (8, 8))
    with pytest.raises(DatasetError, match="has no subsets, only robomimic files do"):
        open_source(DatasetConfig(path=str(demos), fps=10, subset="train"))


@pytest.mark.parametrize("kind", ["lerobot", "act", "robomimic", "zarr", "zip"])
def test_pointers_of_git_lfs_are_called_that(kind: str, tmp_path: Path) -> None:
    if kind == "lerobot":
        demos = write_dataset(tmp_path / "demos", (2,), (8, 8), 2)
        pointer = demos / "data/chunk-000/file-000.parquet"
    elif kind == "act":
        demos = write_hdf5(tmp_path / "demos", (2,), (8, 8))
        pointer = demos / "episode_0.hdf5"
    elif kind == "robomimic":
        pointer = demos = write_robomimic(tmp_path / "demo.hdf5")
    elif kind == "zarr":
        demos = write_pusht(tmp_path / "demos.zarr")
        pointer = demos / "data/img/0.0.0.0"
    else:
        pointer = demos = tmp_path / "demos.zarr.zip"
    pointer.write_text(POINTER)
    fps = {} if kind == "lerobot" else {"fps": 10}
    with pytest.raises(DatasetError, match=r"is a pointer of git-lfs, not the file .* git -C \S+ lfs pull"):
        open_source(DatasetConfig.model_validate({"path": str(demos), **fps}), workers=1).contents([0])


def test_datasets_are_known_by_names_and_nothing_else_is(tmp_path: Path) -> None:
    assert is_dataset(write_robomimic(tmp_path / "a/demo.hdf5")) and is_dataset(tmp_path / "a")
    assert is_dataset(write_pusht(tmp_path / "b.zarr")) and not is_dataset(tmp_path)


def test_inspect_tells_what_is_to_be_said_beside_what_there_is(tmp_path: Path) -> None:
    demos = write_robomimic(tmp_path / "demo.hdf5", state={"a": 3, "b": 7}, env_args={"env_name": "Lift"})
    found = inspect(demos)
    assert (found["kind"], found["frames"], found["fps"]) == ("dataset (hdf5-robomimic)", 9, "not stored")
    assert "There are: a [3], b [7]" in found["state"]
    assert found["next"] == f"vla embed --dataset {demos} --set dataset.fps=50 --set dataset.state_key=NAMES"
    config, lines = config_to_look(DatasetConfig(path=str(write_pusht(tmp_path / "pusht.zarr"))))
    assert (config.fps, list(lines)) == (1, ["fps"])
