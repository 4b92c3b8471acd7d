"""Frame-exact decoding of one mp4 file."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest
from fake_datasets import fake_images, write_video

from vla.embed.datasets import video
from vla.embed.datasets.images import FrameError
from vla.embed.datasets.video import VideoFile

TOLERANCE_S = 1e-4
ENCODERS = {
    # B-frames: decoding order is not the order of times.
    "libx264": {"g": "12", "bf": "3", "b_strategy": "0", "preset": "veryfast"},
    # Open groups of pictures: some frames before a keyframe need the group before it.
    "libx265": {"x265-params": "keyint=12:open-gop=1:bframes=4:log-level=none", "preset": "ultrafast"},
    "libsvtav1": {"g": "12", "preset": "12", "svtav1-params": "lp=1"},
}


def decoded_from_the_start(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Twenty lossless frames at 25 a second."""
    return write_video(tmp_path / "clip.mp4", fake_images(0, 20, (48, 64)))


@pytest.mark.parametrize("codec", ENCODERS)
def test_jumping_to_a_frame_gives_what_decoding_from_the_start_gives(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Encoded in a process of its own: SVT-AV1 run by root leaves its caller with real-time priority 99,
    # and everything that the tests start after it, up to a browser that lets nobody else have its core.
    path = tmp_path / "clip.mp4"
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        process.submit(write_video, path, fake_images(0, 40, (64, 64)), 30, codec, ENCODERS[codec]).result()
    monkeypatch.setattr(video, "JUMP_S", 0.0)  # even the next frame is jumped to
    whole, file = decoded_from_the_start(path), VideoFile(path)
    assert len(whole) == 40
    for number in np.random.default_rng(0).permutation(40):
        (frame,) = file.frames_at([number / 30], TOLERANCE_S)
        assert np.array_equal(frame, whole[number]), number
    file.close()


def test_frames_may_be_left_out_and_asked_for_again(clip: Path) -> None:
    numbers, file = [3, 3, 7, 19, 0, 18, 1], VideoFile(clip)
    found = list(file.frames_at([number / 25 for number in numbers], TOLERANCE_S))
    assert np.array_equal(np.stack(found), fake_images(0, 20, (48, 64))[numbers])


def test_a_file_that_was_read_to_its_end_is_read_again(clip: Path) -> None:
    file = VideoFile(clip)
    with pytest.raises(FrameError, match=r"the video ends before 0\.8000 s"):
        list(file.frames_at([0.8], TOLERANCE_S))
    assert np.array_equal(next(file.frames_at([0.2], TOLERANCE_S)), fake_images(0, 20, (48, 64))[5])


def test_an_instant_between_two_frames_has_none(clip: Path) -> None:
    with pytest.raises(FrameError, match=r"no frame within 0\.0001 s of 0\.0600 s, the next is at 0\.0800 s"):
        list(VideoFile(clip).frames_at([0.06], TOLERANCE_S))


def test_a_damaged_stream_is_an_error_and_no_other_frame(clip: Path) -> None:
    raw = bytearray(clip.read_bytes())
    start = raw.index(b"mdat") + 4
    raw[start + 2000 : start + 60000] = bytes(58000)
    clip.write_bytes(raw)
    whole = fake_images(0, 20, (48, 64))
    with pytest.raises(FrameError):
        for number, frame in enumerate(VideoFile(clip).frames_at([k / 25 for k in range(20)], TOLERANCE_S)):
            assert np.array_equal(frame, whole[number])


def test_absurd_dimensions_are_refused_by_the_header(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.embed.datasets.images.MAX_PIXELS", 48 * 63)
    with pytest.raises(FrameError, match="claims 64 x 48 pixels"):
        VideoFile(clip)


def test_frames_larger_than_the_header_says_are_not_decoded(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "MAX_PIXELS", 48 * 63)  # of the decoder; the header passes
    with pytest.raises(FrameError, match="cannot be decoded"):
        list(VideoFile(clip).frames_at([0.0], TOLERANCE_S))
