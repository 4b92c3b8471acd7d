"""Demonstrations as groups of HDF5 files, compared with what h5py reads."""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fake_formats import HAND, LENGTHS, SIZE, pictures, whole, write_robomimic

from vla.base.errors import DatasetError
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import DatasetConfig

SILENT: dict[str, Any] = {"env_name": "Lift", "type": 1}


def opened(path: Path, **settings: Any) -> FrameSource:
    return open_source(DatasetConfig.model_validate({"path": str(path), **settings}), workers=2)


def read(source: FrameSource, name: str) -> np.ndarray:
    frames = range(sum(episode.length for episode in source.episodes))
    return np.concatenate([block.streams[name] for block in source.read(frames, block=4)])


def contents(source: FrameSource) -> list[bytes]:
    return source.contents(range(len(source.episodes)))


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    return write_robomimic(tmp_path / "low_dim.hdf5")


def test_frames_state_and_actions_are_those_that_h5py_reads(demos: Path) -> None:
    source = opened(demos)
    with h5py.File(demos) as file:
        groups = [file[f"data/demo_{k}"] for k in range(2)]
        image = np.concatenate([demo["obs/agentview_image"][:] for demo in groups])
        state = np.concatenate([np.hstack([demo[f"obs/{name}"][:] for name in HAND]) for demo in groups])
        action = np.concatenate([demo["actions"][:] for demo in groups])
    assert np.array_equal(read(source, "agentview_image"), image)
    assert np.array_equal(read(source, "state"), state.astype(np.float32))
    assert np.array_equal(read(source, "action"), action.astype(np.float32))
    assert (source.format, source.fps, source.keys["state"]) == ("hdf5-robomimic", 20, ",".join(HAND))
    assert [(e.index, e.length, e.task) for e in source.episodes] == [(0, 5, "Lift"), (1, 4, "Lift")]


def test_demonstrations_are_in_numerical_order(tmp_path: Path) -> None:
    source = opened(write_robomimic(tmp_path / "demo.hdf5", [1] * 11))
    assert np.array_equal(read(source, "action"), whole("actions", 7, [1] * 11))


def test_a_folder_holds_several_files_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "demos/task_10.hdf5", (3,), first=2, env_args={**SILENT, "env_name": "Stack"})
    write_robomimic(tmp_path / "demos/task_9.hdf5")
    (tmp_path / "demos/._task_9.hdf5").write_bytes(b"\0\5\x16\7")
    source = opened(tmp_path / "demos", fps=20)
    assert np.array_equal(read(source, "robot0_eye_in_hand_image"), pictures(1, (5, 4, 3)))
    assert [(e.index, e.task) for e in source.episodes] == [(0, "Lift"), (1, "Lift"), (2, "Stack")]
    assert source.files() == ["task_10.hdf5", "task_9.hdf5"]


def test_an_episode_is_the_same_in_whatever_file_and_under_whatever_number(
    demos: Path, tmp_path: Path
) -> None:
    other = write_robomimic(tmp_path / "other/b.hdf5", LENGTHS[1:], first=1)
    assert contents(opened(other)) == contents(opened(demos))[1:]
    assert contents(opened(demos, state_key="robot0_eef_pos")) != contents(opened(demos))


def test_a_subset_is_chosen_by_name(tmp_path: Path) -> None:
    masks = {"train": ["demo_0", "demo_2"], "valid": ["demo_1"]}
    demos = write_robomimic(tmp_path / "demo.hdf5", (1, 1, 1), masks=masks)
    assert [e.index for e in opened(demos, subset="train").episodes] == [0, 2]
    assert opened(demos, subset="train", episodes=[1, 2]).chosen == (2,)
    assert opened(demos).chosen is None
    with pytest.raises(DatasetError, match="has no subset 'test'; its subsets: train, valid"):
        opened(demos, subset="test")
    with pytest.raises(DatasetError, match=r"none of dataset\.episodes is in subset 'valid'"):
        opened(demos, subset="valid", episodes=[0])


def test_subsets_that_are_not_there_are_refused(demos: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no subset 'train'; it has none \(no mask/\)"):
        opened(demos, subset="train")
    listed = write_robomimic(tmp_path / "listed.hdf5", masks={"train": ["demo_7"]})
    with pytest.raises(DatasetError, match="mask/train lists 'demo_7', which is not in the file"):
        opened(listed, subset="train")


def test_frames_a_second_come_from_the_file_or_must_be_given(tmp_path: Path) -> None:
    isaac = {**SILENT, "sim_args": {"dt": 0.01, "decimation": 5}}
    assert opened(write_robomimic(tmp_path / "a.hdf5", env_args=isaac)).fps == 20
    silent = write_robomimic(tmp_path / "b.hdf5", env_args=SILENT)
    with pytest.raises(DatasetError, match=r"do not say how many frames a second .* --set dataset\.fps=20"):
        opened(silent)
    assert opened(silent, fps=15).fps == 15
    with pytest.raises(DatasetError, match=r"says 20 frames a second .* the configuration 15; remove"):
        opened(tmp_path / "a.hdf5", fps=15)


def test_a_state_that_could_be_several_things_is_asked_for_with_what_there_is(tmp_path: Path) -> None:
    demos = write_robomimic(tmp_path / "demo.hdf5", state={"ee_states": 6, "joint_states": 7})
    with pytest.raises(DatasetError, match=r"name them: .* There are: ee_states \[6\], joint_states \[7\]"):
        opened(demos)
    chosen = opened(demos, state_key=["joint_states", "ee_states"])
    both = [whole("joint_states", 7), whole("ee_states", 6)]
    assert np.array_equal(read(chosen, "state"), np.hstack(both))
    assert "state" not in opened(demos, state_key="none").keys


@pytest.mark.parametrize(
    "state",
    [
        {"eef_pos": 3, "eef_quat": 4, "gripper_pos": 2, "object": 9},
        {f"robot{k}_{name.removeprefix('robot0_')}": dim for k in range(2) for name, dim in HAND.items()},
        {"only": 3},
    ],
)
def test_a_state_that_is_plain_is_found(state: dict[str, int], tmp_path: Path) -> None:
    source = opened(write_robomimic(tmp_path / "demo.hdf5", state=state))
    assert source.keys["state"] == ",".join(name for name in state if name != "object")


@pytest.mark.parametrize(
    ("place", "name", "value", "task"),
    [
        ("data", "problem_info", json.dumps({"language_instruction": "open it"}), "open it"),
        ("data", "problem_info", json.dumps({"language_instruction": list("open it")}), "open it"),
        ("data/demo_0", "ep_meta", json.dumps({"lang": "turn it on"}), "turn it on"),
        ("data/demo_0", "task", "push it", "push it"),
        ("data", "env_args", json.dumps({"env_lang": "close it", "env_name": "Door"}), "close it"),
        ("data", "env_args", "no JSON", ""),
    ],
)
def test_task_texts_are_found(place: str, name: str, value: str, task: str, tmp_path: Path) -> None:
    demos = write_robomimic(tmp_path / "demo.hdf5")
    with h5py.File(demos, "r+") as file:
        file[place].attrs[name] = value
    fps = {"fps": 20} if name == "env_args" else {}
    assert opened(demos, **fps).episodes[0].task == task


def test_sensors_are_named_as_observations_or_by_their_whole_name(demos: Path) -> None:
    sensors = {
        "all": {"key": "states", "kind": "vector"},
        "hand": {"key": "obs/robot0_eef_pos", "kind": "vector"},
    }
    source = opened(demos, streams=sensors)
    assert np.array_equal(read(source, "all"), whole("states", 32))
    assert np.array_equal(read(source, "hand"), whole("robot0_eef_pos", 3))
    with pytest.raises(DatasetError, match="has no dataset 'actons'; did you mean 'actions'"):
        opened(demos, action_key="actons")


def test_a_file_without_images_says_how_they_get_there(tmp_path: Path) -> None:
    demos = write_robomimic(tmp_path / "low_dim.hdf5", cameras=())
    with pytest.raises(DatasetError, match=r"has no images .*dataset_states_to_obs\.py"):
        opened(demos)


def test_depth_and_masks_are_no_cameras(demos: Path) -> None:
    with h5py.File(demos, "r+") as file:
        for k, length in enumerate(LENGTHS):
            file[f"data/demo_{k}/obs/depth"] = np.zeros((length, *SIZE, 1), np.float32)
            file[f"data/demo_{k}/obs/normals"] = np.zeros((length, *SIZE, 3), np.float32)
            file[f"data/demo_{k}/obs/elsewhere"] = h5py.ExternalLink("other.hdf5", "images")
    assert opened(demos).camera_names == ("agentview_image", "robot0_eye_in_hand_image")


def test_a_demonstration_that_lacks_a_camera_or_is_a_link_elsewhere_is_refused(demos: Path) -> None:
    with h5py.File(demos, "r+") as file:
        del file["data/demo_1/obs/agentview_image"]
    with pytest.raises(DatasetError, match=r"low_dim\.hdf5 data/demo_1\) lacks camera 'agentview_image'"):
        opened(demos)
    with h5py.File(demos, "r+") as file:
        del file["data/demo_1"]
        file["data/demo_1"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(DatasetError, match="'demo_1' of 'data/demo_1' is a link that leads out of the file"):
        opened(demos)


def test_a_damaged_table_of_names_is_one_line(demos: Path) -> None:
    intact, found = demos.read_bytes(), 0
    places = [match.start() for match in re.finditer(b"SNOD", intact)]  # libhdf5's mark of such a table
    for place in places:
        demos.write_bytes(intact[:place] + bytes(4) + intact[place + 4 :])
        try:
            source = opened(demos)
            for stream in source.streams:
                read(source, stream.name)
        except DatasetError as error:
            found += 1
            assert "\n" not in str(error)
    assert found >= 3  # of the file itself, of data, of obs
