"""Frames are resized where they are decoded: by other threads than the encoder's, to the same bytes."""

import threading
from collections.abc import Callable
from pathlib import Path

import fake_datasets
import numpy as np
import pytest
from fake_datasets import FPS, write_dataset, write_hdf5
from test_engine import run

from vla.base.errors import DatasetError
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.decoders import RESIZED_TOGETHER
from vla.embed.transforms import resize

SMALL, LARGE = (48, 64), (256, 256)
FORMATS: dict[str, Callable[[Path], Path]] = {
    "images": lambda root: write_dataset(root, size=SMALL),
    "videos": lambda root: write_dataset(root, size=SMALL, cameras={"top": "video", "front": "video"}),
    "raw hdf5": lambda root: write_hdf5(root, size=SMALL),
    "encoded hdf5": lambda root: write_hdf5(root, size=SMALL, storage="padded"),
}


def opened(path: Path) -> FrameSource:
    return open_source(DatasetConfig(path=str(path), fps=FPS), workers=2)


@pytest.mark.parametrize("name", FORMATS)
def test_frames_resized_one_by_one_are_those_of_a_whole_block(name: str, tmp_path: Path) -> None:
    source = opened(FORMATS[name](tmp_path / "demos"))
    (whole,), (resized,) = source.read(range(9), 16), source.read(range(9), 16, LARGE)
    for camera in source.camera_names:
        assert whole.streams[camera].shape[1:3] == SMALL
        assert np.array_equal(resized.streams[camera], resize(whole.streams[camera], LARGE))
    (kept,) = source.read(range(9), 16, SMALL)
    assert all(np.array_equal(kept.streams[name], whole.streams[name]) for name in whole.streams)


def test_features_are_those_of_frames_that_were_resized_beforehand(
    encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = run(write_dataset(tmp_path / "small", size=SMALL), encoder_dir, tmp_path / "a")
    drawn = fake_datasets.camera_images
    monkeypatch.setattr(
        fake_datasets, "camera_images", lambda e, k, n, size: resize(drawn(e, k, n, SMALL), size)
    )
    large = run(write_dataset(tmp_path / "large", size=LARGE), encoder_dir, tmp_path / "b")
    for camera in ("r_vis", "top", "front"):
        assert small.all(camera).numpy().tobytes() == large.all(camera).numpy().tobytes()


@pytest.mark.parametrize("kind", ["image", "video"])
def test_no_thread_of_the_encoder_resizes(
    kind: fake_datasets.Kind, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []

    def watched(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        seen.append((threading.current_thread().name, len(frames)))
        return resize(frames, size)

    monkeypatch.setattr("vla.embed.datasets.images.resize", watched)
    monkeypatch.delattr("vla.embed.frozen_encoder.resize")  # what is left of it would be an error
    run(write_dataset(tmp_path / "demos", size=SMALL, cameras={"top": kind}), encoder_dir, tmp_path / "out")
    assert sum(rows for _, rows in seen) == 9
    most = {"image": 1, "video": RESIZED_TOGETHER}[kind]
    assert all(name.startswith("images") and rows <= most for name, rows in seen)


def test_a_video_that_ends_too_soon_names_the_frame_that_is_missing(tmp_path: Path) -> None:
    demos = write_dataset(tmp_path / "demos", size=SMALL, cameras={"top": "video"})
    (video,) = demos.rglob("file-000.mp4")
    fake_datasets.write_video(video, fake_datasets.camera_images(0, 0, 3, SMALL))
    with pytest.raises(DatasetError, match=r"camera 'top' at episode 0, frame 3 is missing"):
        list(opened(demos).read(range(5), 8, LARGE))
