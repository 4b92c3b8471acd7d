"""lerobot writes, vla reads; vla writes, lerobot reads. In an environment of its own: make interop."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from vla.cli import main
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.rollout.record.record import record
from vla.rollout.rollout_config import EnvConfig, RecordConfig
from vla.rollout.worlds.sim_transfer.world import (
    CAMERAS,
    CONTROL_HZ,
    INSTRUCTION,
    MAX_EPISODE_STEPS,
    STATE_NAMES,
)

pytestmark = [
    pytest.mark.interop,
    # What lerobot and its libraries warn about is theirs.
    pytest.mark.filterwarnings("ignore"),
]

LENGTHS = (9, 14, 5, 11)
FPS = 30
SIZE = (96, 128)
TASKS = ("stack the cups", "open the drawer")
VIEWS = ("top", "wrist")


@pytest.fixture(scope="session")
def lerobot_dataset() -> Any:
    """Return the class `LeRobotDataset` of the installed lerobot, offline."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset


def frame_number(episode: int, frame: int) -> int:
    return sum(LENGTHS[:episode]) + frame


def picture(view: str, number: int) -> np.ndarray:
    """Draw a frame that tells its number, in six black or white stripes over a texture."""
    rng = np.random.default_rng([VIEWS.index(view), number])
    image = rng.integers(96, 160, (SIZE[0], SIZE[1], 3), dtype=np.uint8)
    for bit in range(6):
        image[16 * bit : 16 * bit + 16, :64] = 255 * (number >> bit & 1)
    return image


def number_shown(image: np.ndarray) -> int:
    """Read the stripes of a frame, however lossy its compression."""
    return sum(int(image[16 * bit + 8, 16:48].mean() > 127) << bit for bit in range(6))


def write_with_lerobot(
    lerobot_dataset: Any,
    root: Path,
    videos: bool,
    codec: str = "libsvtav1",
    episodes: Sequence[int] | None = None,
) -> Path:
    """Record the four episodes, or some of them, with lerobot."""
    kind = "video" if videos else "image"
    image = {"dtype": kind, "shape": (*SIZE, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]}
    features = {f"observation.images.{view}": image for view in VIEWS}
    features |= {"observation.state": vector, "action": vector}
    dataset = lerobot_dataset.create(
        "someone/demos", FPS, features, root=root, use_videos=videos, rgb_encoder=video_encoder(codec)
    )
    record_episodes(dataset, range(len(LENGTHS)) if episodes is None else episodes)
    return root


def video_encoder(codec: str) -> Any:
    """Return lerobot's settings of a codec."""
    from lerobot.configs.video import RGBEncoderConfig

    return RGBEncoderConfig(vcodec=codec)


def record_episodes(dataset: Any, episodes: Sequence[int]) -> None:
    """Record some of the four episodes with lerobot, and close the dataset."""
    for episode in episodes:
        for frame in range(LENGTHS[episode]):
            number = frame_number(episode, frame)
            values: dict[str, Any] = {f"observation.images.{view}": picture(view, number) for view in VIEWS}
            values["observation.state"] = np.array([episode, frame, number], np.float32)
            values["action"] = -values["observation.state"]
            dataset.add_frame({**values, "task": TASKS[episode % 2]})
        dataset.save_episode()
    dataset.finalize()


@pytest.fixture(scope="session", params=["libsvtav1", "h264"])
def mp4(
    request: pytest.FixtureRequest, lerobot_dataset: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Four episodes that lerobot wrote into one mp4 a camera; read it, do not change it."""
    root = tmp_path_factory.mktemp("lerobot") / request.param
    return write_with_lerobot(lerobot_dataset, root, videos=True, codec=request.param)


def read_all(root: Path, **settings: Any) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Return all frames by camera, all states, and the episodes' tasks, as `vla embed` reads them."""
    source = open_source(DatasetConfig.model_validate({"path": str(root), **settings}), workers=2)
    total = sum(episode.length for episode in source.episodes)
    blocks = list(source.read(range(total), block=7))
    views = {view: np.concatenate([b.streams[view] for b in blocks]) for view in source.camera_names}
    return views, np.concatenate([b.streams["state"] for b in blocks]), [e.task for e in source.episodes]


def as_pixels(image: torch.Tensor) -> np.ndarray:
    """Turn lerobot's float [3, h, w] in [0, 1] back into the uint8 [h, w, 3] it was made of."""
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_videos_that_lerobot_wrote_are_read_frame_by_frame_as_lerobot_reads_them(
    mp4: Path, lerobot_dataset: Any
) -> None:
    assert len(list(mp4.glob("videos/observation.images.top/**/*.mp4"))) == 1
    views, states, tasks = read_all(mp4)
    theirs = lerobot_dataset("someone/demos", root=mp4, video_backend="pyav")
    assert len(theirs) == len(states) == sum(LENGTHS)
    for number in range(sum(LENGTHS)):
        item = theirs[number]
        for view in VIEWS:
            assert np.array_equal(views[view][number], as_pixels(item[f"observation.images.{view}"]))
        assert np.array_equal(states[number], item["observation.state"].numpy())
    assert tasks == [TASKS[episode % 2] for episode in range(len(LENGTHS))]
    for view in VIEWS:
        right = sum(number_shown(image) == number for number, image in enumerate(views[view]))
        # At lerobot's crf 30, AV1 as libdav1d decodes it shows a stripe or two of a few frames unchanged.
        assert right == len(states) if mp4.name == "h264" else right >= 0.8 * len(states)


def test_an_episode_in_the_middle_of_a_video_is_found_at_its_offset(mp4: Path) -> None:
    views, states, _ = read_all(mp4, episodes=[2])
    first, last = frame_number(2, 0), frame_number(3, 0)
    assert states[:, 2].tolist() == list(range(first, last))
    assert np.array_equal(views["wrist"], read_all(mp4)[0]["wrist"][first:last])


def test_images_that_lerobot_wrote_are_read_to_the_last_bit(tmp_path: Path, lerobot_dataset: Any) -> None:
    root = write_with_lerobot(lerobot_dataset, tmp_path / "images", videos=False)
    views, states, _ = read_all(root)
    for view in VIEWS:
        assert np.array_equal(views[view], np.stack([picture(view, n) for n in range(sum(LENGTHS))]))
    assert states[:, 2].tolist() == list(range(sum(LENGTHS)))


def test_vla_embed_takes_a_data_set_of_lerobot_as_it_is(
    mp4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # this repository's pipeline.toml names other cameras
    arguments = ["--dataset", str(mp4), "--encoder", "siglip2-tiny-random", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        main(["embed", *arguments, "--device", "cpu", "--json"])
    assert not stopped.value.code
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["cameras"]) == (sum(LENGTHS), list(VIEWS))


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes that `vla record` wrote."""
    out = tmp_path_factory.mktemp("vla") / "demos"
    env = EnvConfig(kwargs={"render_height": 48, "render_width": 64})
    record(env, RecordConfig(episodes=2, image_size=(48, 64), out=str(out)))
    return out


def test_lerobot_opens_what_vla_recorded(recording: Path, lerobot_dataset: Any) -> None:
    theirs = lerobot_dataset("vla/demos", root=recording)
    assert (len(theirs), theirs.num_episodes, theirs.fps) == (2 * MAX_EPISODE_STEPS, 2, CONTROL_HZ)
    assert theirs.meta.camera_keys == [f"observation.images.{camera}" for camera in CAMERAS]
    assert theirs.meta.features["action"]["names"] == list(STATE_NAMES)
    views, states, _ = read_all(recording)
    for index in (0, 7, MAX_EPISODE_STEPS - 1, MAX_EPISODE_STEPS, 2 * MAX_EPISODE_STEPS - 1):
        item = theirs[index]
        assert item["task"] == INSTRUCTION
        assert (int(item["episode_index"]), int(item["frame_index"])) == divmod(index, MAX_EPISODE_STEPS)
        assert np.array_equal(item["observation.state"].numpy(), states[index])
        for camera in CAMERAS:
            assert np.array_equal(as_pixels(item[f"observation.images.{camera}"]), views[camera][index])


def test_lerobot_finds_the_statistics_it_normalises_with(recording: Path, lerobot_dataset: Any) -> None:
    stats = lerobot_dataset("vla/demos", root=recording).meta.stats
    views, states, _ = read_all(recording)
    np.testing.assert_allclose(stats["observation.state"]["mean"], states.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(stats["observation.state"]["std"], states.std(axis=0), atol=1e-5)
    shown = views["top"].reshape(-1, 3) / 255
    assert np.shape(stats["observation.images.top"]["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(
        np.ravel(stats["observation.images.top"]["mean"]), shown.mean(axis=0), atol=1e-6
    )


def test_lerobot_cuts_windows_out_of_what_vla_recorded(recording: Path, lerobot_dataset: Any) -> None:
    step = 1 / CONTROL_HZ
    windows = {"observation.images.top": [-step, 0.0], "action": [k * step for k in range(16)]}
    theirs = lerobot_dataset("vla/demos", root=recording, delta_timestamps=windows)
    item = theirs[MAX_EPISODE_STEPS - 4]
    assert item["observation.images.top"].shape == (2, 3, 48, 64)
    assert item["action"].shape == (16, len(STATE_NAMES))
    assert item["action_is_pad"].tolist() == [False] * 4 + [True] * 12
    batch = next(iter(torch.utils.data.DataLoader(theirs, batch_size=4)))
    assert batch["action"].shape == (4, 16, len(STATE_NAMES))


def test_lerobot_can_take_one_episode_of_what_vla_recorded(recording: Path, lerobot_dataset: Any) -> None:
    second = lerobot_dataset("vla/demos", root=recording, episodes=[1])
    assert (len(second), int(second[0]["episode_index"])) == (MAX_EPISODE_STEPS, 1)


def test_the_videos_hold_no_more_than_the_frames(mp4: Path) -> None:
    (path,) = mp4.glob("videos/observation.images.top/**/*.mp4")
    with av.open(str(path)) as video:
        assert sum(1 for _ in video.decode(video=0)) == sum(LENGTHS)
