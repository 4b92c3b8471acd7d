"""Datasets whose cameras are videos: several episodes a file, files of their own, images beside videos."""

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_datasets import FPS, Kind, camera_images, vectors, write_dataset, write_video
from fakes import shard_file

from vla.base.errors import DatasetError
from vla.cache import CacheConfig, FeatureCache
from vla.embed import DatasetConfig, SiglipConfig, embed
from vla.embed.datasets import FrameBlock, FrameSource, open_source

LENGTHS = (7, 12, 1, 5)
SIZE = (48, 64)
KINDS: dict[str, Kind] = {"top": "video", "front": "image", "r_vis": "video"}
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def opened(path: Path, **settings: object) -> FrameSource:
    return open_source(DatasetConfig.model_validate({"path": str(path), **settings}), workers=2)


def joined(blocks: Sequence[FrameBlock], camera: str) -> np.ndarray:
    return np.concatenate([block.streams[camera] for block in blocks])


def truth(camera: str, episodes: Sequence[int] = range(4)) -> np.ndarray:
    k = list(KINDS).index(camera)
    return np.concatenate([camera_images(e, k, LENGTHS[e], SIZE) for e in episodes])


@pytest.fixture(scope="module", params=["v3.0", "v2.1", "v2.0"])
def videos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes, in v3.0 three of them in one file; read it, do not change it."""
    root = tmp_path_factory.mktemp("videos") / request.param
    return write_dataset(root, LENGTHS, SIZE, 5, version=request.param, cameras=KINDS, episodes_per_file=3)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "demos", LENGTHS, SIZE, 5, cameras=KINDS, episodes_per_file=3)


def test_every_frame_of_every_camera_is_the_one_that_was_written(videos: Path) -> None:
    blocks = list(opened(videos).read(range(25), block=4))
    assert [len(block) for block in blocks] == [4] * 6 + [1]
    for camera in KINDS:
        assert np.array_equal(joined(blocks, camera), truth(camera))
    state = np.concatenate([vectors(e, n, 5)[0] for e, n in enumerate(LENGTHS)])
    assert np.array_equal(np.concatenate([block.streams["state"] for block in blocks]), state)


def test_reading_from_any_frame_gives_the_same_frames(videos: Path) -> None:
    source, whole = opened(videos), truth("top")
    for first in range(25):
        (block,) = source.read(range(first, min(first + 3, 25)), block=8)
        assert np.array_equal(block.streams["top"], whole[first : first + 3]), first


def test_who_stops_reading_in_the_middle_leaves_no_thread_at_work(videos: Path) -> None:
    before = threading.active_count()
    blocks = opened(videos).read(range(25), block=2)
    assert np.array_equal(next(blocks).streams["top"], truth("top")[:2])
    assert threading.active_count() > before
    blocks.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == before


def test_chosen_episodes_are_renumbered_and_keep_their_own_number(videos: Path) -> None:
    source = opened(videos, episodes=[3, 1])
    assert [(e.index, e.first_frame, e.length) for e in source.episodes] == [(1, 0, 12), (3, 12, 5)]
    (block,) = source.read(range(17), block=64)
    assert np.array_equal(block.streams["r_vis"], truth("r_vis", [1, 3]))
    assert block.episode_index.tolist() == [1] * 12 + [3] * 5
    assert block.frame_index.tolist() == [*range(12), *range(5)]


def test_identity_covers_the_chosen_episodes_and_the_videos_that_are_read(copy: Path) -> None:
    whole, part = opened(copy).identity(), opened(copy, episodes=[1]).identity()
    assert (whole.episodes, part.episodes) == (None, (1,))
    assert opened(copy, episodes=[0, 1, 2, 3]).identity() == whole
    assert whole.content_sha256 != part.content_sha256
    top = copy / "videos/observation.images.top/chunk-000/file-001.mp4"
    write_video(top, camera_images(9, 0, 5, SIZE))
    assert opened(copy).identity().content_sha256 != whole.content_sha256
    assert opened(copy, episodes=[1]).identity() == part  # that file is not read


def test_embedding_videos_in_one_go_or_resumed_gives_the_same_bytes(
    copy: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    def run(out: str) -> FeatureCache:
        report = embed(
            DatasetConfig(path=str(copy), episodes=(0, 1, 3)),
            SiglipConfig(id=str(encoder_dir), device="cpu"),
            CacheConfig(path=str(tmp_path / out), shard_frames=5),
        )
        return FeatureCache(Path(report.cache))

    whole, resumed = run("whole").folder, run("resumed").folder
    for shard in (1, 3):
        shard_file(resumed, shard).unlink()
    run("resumed")
    for path in sorted(whole.rglob("*.*")):
        assert (resumed / path.relative_to(whole)).read_bytes() == path.read_bytes(), path


def test_a_video_that_is_too_short_is_named_with_episode_and_frame(copy: Path) -> None:
    write_video(copy / "videos/observation.images.top/chunk-000/file-001.mp4", camera_images(3, 0, 3, SIZE))
    with pytest.raises(DatasetError, match="camera 'top' at episode 3, frame 3 is missing: the video ends"):
        list(opened(copy).read(range(25), block=8))


def test_a_video_at_another_rate_is_refused(copy: Path) -> None:
    path = copy / "videos/observation.images.top/chunk-000/file-001.mp4"
    write_video(path, camera_images(3, 0, 5, SIZE), fps=24)
    with pytest.raises(
        DatasetError, match=r"episode 3, frame 1 is missing: the video has no frame within 0\.0001 s"
    ):
        list(opened(copy).read(range(20, 25), block=8))
    blocks = opened(copy, tolerance_s=0.015).read(range(20, 25), block=8)
    assert np.array_equal(joined(list(blocks), "top"), truth("top", [3]))


def test_a_tolerance_that_cannot_tell_frames_apart_is_refused(copy: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"tolerance_s = 0\.02 does not tell frames apart .* less than 0\.02"
    ):
        opened(copy, tolerance_s=0.5 / FPS)


def test_timestamps_that_contradict_fps_are_refused(copy: Path) -> None:
    path = copy / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    column = pa.array([0.0, 0.04, 0.09, 0.12, 0.16], pa.float32())
    where = table.column_names.index("timestamp")
    pq.write_table(table.set_column(where, table.schema.field("timestamp"), column), path)
    with pytest.raises(
        DatasetError, match=r"episode 3, frame 2 has timestamp 0\.09000 s; .* due at 0\.08000 s"
    ):
        list(opened(copy).read(range(25), block=8))


def test_an_episode_may_not_reach_into_the_video_of_the_next(copy: Path) -> None:
    rows = pq.read_table(copy / EPISODES).to_pylist()
    rows[0]["videos/observation.images.top/to_timestamp"] = 5 / FPS
    pq.write_table(pa.Table.from_pylist(rows), copy / EPISODES)
    with pytest.raises(DatasetError, match=r"episode 0 has 7 frames, which take 0\.280 s; .* takes 0\.200 s"):
        _ = opened(copy).episodes


def test_a_missing_video_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "videos/observation.images.top")
    with pytest.raises(DatasetError, match=r"videos/observation\.images\.top/.*file-000\.mp4 is missing"):
        opened(copy).identity()


def test_what_is_no_mp4_is_refused_and_no_playlist_is_followed(copy: Path) -> None:
    path = copy / "videos/observation.images.top/chunk-000/file-001.mp4"
    path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    with pytest.raises(DatasetError, match="camera 'top' at episode 3, frame 0 is no mp4 video"):
        list(opened(copy).read(range(20, 25), block=8))


def test_video_features_without_a_path_template_are_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "demos", (2,), SIZE, 5, cameras={"top": "video"})
    info = root / "meta/info.json"
    info.write_text(info.read_text().replace('"video_path"', '"audio_path"'))
    with pytest.raises(
        DatasetError, match=r"'observation\.images\.top' is a video, but info\.json has no video_path"
    ):
        _ = opened(root).episodes
