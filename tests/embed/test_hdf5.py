"""Folders of HDF5 episodes: raw and compressed images, hostile files."""

import sys
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pytest
from fake_datasets import CAMERAS, TASK, camera_images, jpeg, vectors, write_hdf5

from vla.base.errors import DatasetError
from vla.embed.datasets import FrameSource, images, open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.hdf5.heaps import Hdf5Bytes
from vla.embed.datasets.images import decode_image

SIZE = (48, 64)


def opened(path: Path, **settings: object) -> FrameSource:
    return open_source(DatasetConfig.model_validate({"path": str(path), "fps": 50, **settings}), workers=2)


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    return write_hdf5(tmp_path / "demos")


def change(root: Path, name: str) -> h5py.File:
    """Open an episode for changes, without one of its members."""
    file = h5py.File(root / "episode_1.hdf5", "r+")
    del file[name]
    return file


def test_episodes_cameras_and_vectors_are_found(demos: Path) -> None:
    source = opened(demos)
    assert (source.format, source.fps, set(source.camera_names)) == ("hdf5-act", 50, set(CAMERAS))
    assert [stream.shape for stream in source.streams[-2:]] == [(14,), (14,)]
    assert [(e.index, e.first_frame, e.length, e.task) for e in source.episodes] == [
        (0, 0, 5, TASK),
        (1, 5, 4, TASK),
    ]


def test_raw_frames_are_read_exactly_across_episodes(demos: Path) -> None:
    blocks = list(opened(demos, cameras=CAMERAS).read(range(1, 9), block=5))
    assert [len(block) for block in blocks] == [5, 3]
    for k, camera in enumerate(CAMERAS):
        whole = np.concatenate([camera_images(e, k, n, SIZE) for e, n in ((0, 5), (1, 4))])
        assert np.array_equal(np.concatenate([block.streams[camera] for block in blocks]), whole[1:])
    state, action = (
        np.concatenate(pair)[1:] for pair in zip(vectors(0, 5, 14), vectors(1, 4, 14), strict=True)
    )
    assert np.array_equal(np.concatenate([block.streams["state"] for block in blocks]), state)
    assert np.array_equal(np.concatenate([block.streams["action"] for block in blocks]), action)
    assert np.concatenate([block.frame_index for block in blocks]).tolist() == [1, 2, 3, 4, 0, 1, 2, 3]


@pytest.mark.parametrize("storage", ["padded", "strings", "varying"])
def test_compressed_frames_are_decoded(
    storage: Literal["padded", "strings", "varying"], tmp_path: Path
) -> None:
    root = write_hdf5(tmp_path / "demos", storage=storage)
    (block,) = opened(root).read(range(9), block=16)
    seen = np.concatenate([camera_images(e, 1, n, SIZE) for e, n in ((0, 5), (1, 4))])
    assert np.array_equal(block.streams["top"], np.stack([decode_image(jpeg(image)) for image in seen]))


def test_swapped_colours_are_put_right_and_are_another_dataset(demos: Path) -> None:
    rgb, bgr = opened(demos), opened(demos, color="bgr")
    (a,), (b,) = rgb.read(range(1), block=1), bgr.read(range(1), block=1)
    assert np.array_equal(a.streams["top"][..., ::-1], b.streams["top"])
    assert rgb.identity().content_sha256 != bgr.identity().content_sha256
    assert rgb.identity() != opened(demos, fps=30).identity()


def test_episodes_are_in_numerical_order_and_chosen_by_number(tmp_path: Path) -> None:
    root = write_hdf5(tmp_path / "demos", lengths=[1] * 11, size=(8, 8))
    assert [episode.index for episode in opened(root).episodes] == list(range(11))
    source = opened(root, episodes=[10, 2])
    assert [(e.index, e.first_frame) for e in source.episodes] == [(2, 0), (10, 1)]
    assert (source.identity().episodes, source.files()) == ((2, 10), ["episode_10.hdf5", "episode_2.hdf5"])


def test_episodes_without_task_text_have_none(tmp_path: Path) -> None:
    assert opened(write_hdf5(tmp_path / "demos", task=None)).episodes[0].task == ""


def test_frames_a_second_must_be_given(demos: Path) -> None:
    with pytest.raises(DatasetError, match=r"do not say how many frames a second .* --set dataset\.fps=50"):
        opened(demos, fps=None)


def test_missing_names_are_answered_with_those_there_are(demos: Path) -> None:
    with pytest.raises(DatasetError, match="no camera 'wrist'; its cameras: front, r_vis, top"):
        opened(demos, cameras=["wrist"])
    with pytest.raises(DatasetError, match="no dataset 'observations/qpo'; did you mean 'observations/qpos'"):
        opened(demos, state_key="observations/qpo")
    with pytest.raises(DatasetError, match="no episode 7; its 2 episodes are numbered 0 to 1"):
        opened(demos, episodes=[0, 7])


def test_lengths_that_differ_are_refused(demos: Path) -> None:
    with change(demos, "action") as file:
        file["action"] = np.zeros((2, 14))
    with pytest.raises(
        DatasetError, match=r"episode_1\.hdf5: 'action' has 2 frames, 'observations/qpos' has 4"
    ):
        opened(demos)


def test_a_state_of_another_size_is_refused(demos: Path) -> None:
    with change(demos, "observations/qpos") as file:
        file["observations/qpos"] = np.zeros((4, 7))
    with pytest.raises(
        DatasetError, match=r"\(episode_1\.hdf5\) has state of shape \[7\], the first one \[14\]"
    ):
        opened(demos)


def test_external_links_are_refused(demos: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["secret"] = np.zeros((4, 14))
    with change(demos, "action") as file:
        file["action"] = h5py.ExternalLink("../other.hdf5", "secret")
    with pytest.raises(DatasetError, match="'action' of 'action' is a link that leads out of the file"):
        opened(demos)


def test_soft_links_are_followed_within_the_file_only(demos: Path) -> None:
    with change(demos, "action") as file:
        file["teleop/commands"] = np.zeros((4, 14))
        file["action"] = h5py.SoftLink("/teleop/commands")
    assert opened(demos).streams[-1].shape == (14,)
    with change(demos, "teleop") as file:
        file["teleop"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(DatasetError, match=r"'teleop' of '.*' is a link that leads out of the file"):
        opened(demos)


def test_soft_links_in_a_circle_end(demos: Path) -> None:
    with change(demos, "action") as file:
        file["action"] = h5py.SoftLink("/again")
        file["again"] = h5py.SoftLink("/action")
    with pytest.raises(DatasetError, match="is a link that leads out of the file"):
        opened(demos)


def test_data_kept_in_other_files_are_refused(demos: Path, tmp_path: Path) -> None:
    with change(demos, "action") as file:
        file.create_dataset("action", (4, 14), "f8", external=[(str(tmp_path / "raw"), 0, 448)])
    with pytest.raises(DatasetError, match="'action' keeps its data in other files"):
        opened(demos)
    layout = h5py.VirtualLayout((4, 14), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "x", (4, 14))
    with change(demos, "action") as file:
        file.create_virtual_dataset("action", layout)
    with pytest.raises(DatasetError, match="'action' keeps its data in other files"):
        opened(demos)


def test_sizes_are_checked_before_memory_is_taken(demos: Path) -> None:
    name = "observations/images/top"
    with change(demos, name) as file:
        file.create_dataset(name, (4, 10**6, 10**6, 3), "u1", chunks=(1, 64, 64, 3))
    with pytest.raises(DatasetError, match="camera 'top' claims 1000000 x 1000000 pixels"):
        opened(demos)
    with change(demos, name) as file:
        file.create_dataset(name, (4, 2**31), "u1", chunks=(1, 2**31))
    with pytest.raises(DatasetError, match="claims chunks of 2048 MiB; vla reads up to 1024"):
        opened(demos)


def test_images_of_another_type_are_refused(demos: Path) -> None:
    name = "observations/images/top"
    with change(demos, name) as file:
        file[name] = np.zeros((4, *SIZE, 3), np.uint16)
    with pytest.raises(DatasetError, match=r"camera 'top' is uint16 \[4, 48, 64, 3\]; vla takes uint8"):
        opened(demos)


def test_a_damaged_image_is_named_by_camera_episode_and_frame(tmp_path: Path) -> None:
    root = write_hdf5(tmp_path / "demos", storage="padded")
    with h5py.File(root / "episode_1.hdf5", "r+") as file:
        file["observations/images/top"][2] = 7
    with pytest.raises(DatasetError, match="camera 'top' at episode 1, frame 2 is no image"):
        list(opened(root).read(range(9), block=4))


def test_an_encoded_image_of_absurd_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_hdf5(tmp_path / "demos", storage="padded")
    monkeypatch.setattr(images, "MAX_PIXELS", 48 * 63)
    with pytest.raises(DatasetError, match="camera 'top' at episode 0, frame 0 claims 64 x 48 pixels"):
        list(opened(root, cameras=["top"]).read(range(9), block=4))


HEAP_LENGTH, FIRST_ENTRY, WHAT_IS_LEFT = 8, 24, 64
"""Where lengths stand in the global heap that holds the task text, from its beginning."""


@pytest.mark.parametrize(
    ("field", "length"),
    [(WHAT_IS_LEFT, 0), (FIRST_ENTRY, 2**64 - 16), (FIRST_ENTRY, 2**64 - 1), (HEAP_LENGTH, 2**40)],
)
def test_a_heap_that_libhdf5_would_never_come_to_the_end_of_is_refused(
    demos: Path, field: int, length: int
) -> None:
    path = demos / "episode_1.hdf5"
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + field : heap + field + 8] = length.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=rf"episode_1\.hdf5.*the global heap at byte {heap} is damaged"):
        opened(demos)
    with Hdf5Bytes(path) as file:
        file.seek(heap + 2)
        with pytest.raises(OSError, match=f"heap at byte {heap} is damaged"):
            file.read(2)  # libhdf5 may have the rest from a read before


def test_an_episode_that_is_cut_short_while_it_is_read_is_named(demos: Path) -> None:
    blocks = opened(demos, cameras=["top"]).read(range(5), block=1)
    next(blocks)
    with (demos / "episode_0.hdf5").open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(DatasetError, match=r"cannot be read \(the file ends before byte "):
        list(blocks)


def test_what_is_no_hdf5_is_named(demos: Path) -> None:
    (demos / "episode_1.hdf5").write_bytes((demos / "episode_1.hdf5").read_bytes()[:3000])
    with pytest.raises(DatasetError, match=r"episode_1\.hdf5 is no HDF5 file that can be read"):
        opened(demos)


def test_two_files_of_one_number_are_refused(demos: Path) -> None:
    (demos / "episode_01.hdf5").write_bytes((demos / "episode_1.hdf5").read_bytes())
    with pytest.raises(DatasetError, match=r"episode_01\.hdf5 and episode_1\.hdf5 are the same episode"):
        opened(demos)


def test_without_h5py_the_extra_is_named(demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DatasetError, match=r"needs h5py to be read: pip install 'vla\[hdf5\]'"):
        opened(demos)
