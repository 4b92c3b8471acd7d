"""ACT's HDF5 as people have it: other axes, columns that are joined, cameras that come and go."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fake_datasets import CAMERAS, camera_images, vectors, write_hdf5
from pydantic import ValidationError

from vla.base.errors import DatasetError
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import NONE, DatasetConfig

SIZE, LENGTHS = (8, 12), (5, 4)
TOP = "observations/images/top"


def opened(path: Path, **settings: Any) -> FrameSource:
    return open_source(DatasetConfig.model_validate({"path": str(path), "fps": 50, **settings}), workers=2)


def read(source: FrameSource, name: str) -> np.ndarray:
    frames = range(sum(episode.length for episode in source.episodes))
    return np.concatenate([block.streams[name] for block in source.read(frames, block=4)])


def contents(source: FrameSource) -> list[bytes]:
    return source.contents(range(len(source.episodes)))


def top() -> np.ndarray:
    return np.concatenate([camera_images(e, CAMERAS.index("top"), n, SIZE) for e, n in enumerate(LENGTHS)])


def joint(which: int) -> np.ndarray:
    return np.concatenate([vectors(e, n, 14)[which] for e, n in enumerate(LENGTHS)])


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    return write_hdf5(tmp_path / "demos", LENGTHS, SIZE)


def replace(demos: Path, name: str, change: Any, episodes: tuple[int, ...] = (0, 1)) -> None:
    """Put something else in the place of a dataset; without a value nothing."""
    for episode in episodes:
        with h5py.File(demos / f"episode_{episode}.hdf5", "r+") as file:
            value = change(file[name][:]) if name in file else change(np.zeros((LENGTHS[episode], 2)))
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images[:, None],
        lambda images: images.transpose(0, 3, 1, 2),
        lambda images: images.transpose(0, 3, 1, 2)[:, None],
        lambda images: images.astype(np.float32),
    ],
    ids=["an axis of length 1", "CHW", "both", "whole numbers as floats"],
)
def test_images_with_other_axes_are_the_same_images(change: Any, demos: Path) -> None:
    before = contents(opened(demos))
    replace(demos, TOP, change)
    assert np.array_equal(read(opened(demos), "top"), top())
    assert contents(opened(demos)) == before


def test_images_between_0_and_1_are_refused_by_frame(demos: Path) -> None:
    replace(demos, TOP, lambda images: images / np.float32(255))
    with pytest.raises(
        DatasetError, match=r"camera 'top' at episode 0, frame 0 is float32 from .* to .*uint8"
    ):
        read(opened(demos), "top")


@pytest.mark.parametrize("axes", [(3, 3), (2,), (1, 2)])
def test_images_of_no_known_form_are_refused(axes: tuple[int, ...], demos: Path) -> None:
    replace(demos, TOP, lambda images: np.zeros((len(images), *axes, 8, 8), np.uint8))
    with pytest.raises(
        DatasetError, match=r"camera 'top' is uint8 \[5, .*\]; vla takes uint8 \[frames, height"
    ):
        opened(demos)


def test_hidden_files_of_macos_are_not_episodes(demos: Path) -> None:
    (demos / "._episode_0.hdf5").write_bytes(b"\0\5\x16\7")
    (demos / ".episode_1.hdf5").touch()
    assert [episode.length for episode in opened(demos).episodes] == list(LENGTHS)


@pytest.mark.parametrize(("episode", "has"), [(0, "lacks"), (1, "has")])
def test_a_camera_that_is_not_everywhere_is_named_with_those_that_are(
    episode: int, has: str, demos: Path
) -> None:
    with h5py.File(demos / f"episode_{episode}.hdf5", "r+") as file:
        file["observations/images/wrist"] = file[TOP][:]
    shared = r'dataset\.cameras=\["front", "r_vis", "top"\]'
    message = rf"episode 1 \(episode_1\.hdf5\) {has} camera 'wrist'.*{shared}"
    with pytest.raises(DatasetError, match=message):
        opened(demos)
    assert opened(demos, cameras=["top"]).camera_names == ("top",)


def test_an_observation_that_no_action_follows_is_left_out(demos: Path) -> None:
    replace(demos, "action", lambda rows: rows[:-1])
    source = opened(demos)
    assert [episode.length for episode in source.episodes] == [4, 3]
    assert np.array_equal(read(source, "top"), np.delete(top(), (4, 8), axis=0))
    assert np.array_equal(read(source, "action"), np.delete(joint(1), (4, 8), axis=0))


@pytest.mark.parametrize("column", ["action", "observations/qpos"])
def test_other_differences_of_length_are_refused(column: str, demos: Path) -> None:
    replace(demos, column, lambda rows: rows[: -2 if column == "action" else -1])
    with pytest.raises(DatasetError, match=r"has \d frames, 'observations/qpos' has \d; mend the file"):
        opened(demos)


def test_columns_are_joined_in_the_order_of_their_names(demos: Path) -> None:
    replace(demos, "base_action", lambda rows: rows + np.array([0.25, 0.5]))
    names = {"action_key": ["action", "base_action"], "state_key": ["base_action", "observations/qpos"]}
    source = opened(demos, **names)
    base = np.full((9, 2), [0.25, 0.5], np.float32)
    assert np.array_equal(read(source, "action"), np.hstack([joint(1), base]))
    assert np.array_equal(read(source, "state"), np.hstack([base, joint(0)]))
    assert source.keys["action"] == "action,base_action"
    assert contents(opened(demos, action_key="action,base_action", state_key=names["state_key"])) == contents(
        source
    )


def test_one_name_is_the_same_with_and_without_a_list(demos: Path) -> None:
    listed, plain = opened(demos, action_key=["action"]), opened(demos)
    assert (listed.streams, contents(listed)) == (plain.streams, contents(plain))


def test_a_column_without_a_second_axis_is_one_value(demos: Path) -> None:
    replace(demos, "gripper", lambda rows: rows[:, 0] + 0.5)
    source = opened(demos, action_key=["action", "gripper"])
    assert np.array_equal(read(source, "action")[:, -1], np.full(9, 0.5)) and source.streams[-1].shape == (
        15,
    )


def test_columns_that_cannot_be_joined_are_refused(demos: Path) -> None:
    replace(demos, "scan", lambda rows: np.zeros((len(rows), 3, 4)))
    with pytest.raises(DatasetError, match=r"'scan' has shape \[3, 4\] a frame; only vectors are joined"):
        opened(demos, state_key=["observations/qpos", "scan"])
    with pytest.raises(DatasetError, match="has no dataset 'base_acton'"):
        opened(demos, action_key=["action", "base_acton"])


@pytest.mark.parametrize("none", [NONE, []])
def test_the_state_may_be_left_out(none: object, demos: Path) -> None:
    source = opened(demos, state_key=none)
    assert list(source.keys) == ["front", "r_vis", "top", "action"]
    assert np.array_equal(read(source, "action"), joint(1))


@pytest.mark.parametrize(
    "keys", [{"action_key": []}, {"action_key": NONE}, {"state_key": ["a", ""]}, {"state_key": ["a,b"]}]
)
def test_lists_of_no_names_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"nothing to learn|none of which is empty or has a comma"):
        DatasetConfig.model_validate(keys)


def test_one_episode_may_be_named_by_its_file(demos: Path) -> None:
    source = opened(demos / "episode_1.hdf5")
    assert [(e.index, e.length) for e in source.episodes] == [(1, 4)]
    assert contents(source) == contents(opened(demos))[1:]
