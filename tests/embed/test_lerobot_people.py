"""LeRobot datasets as people really have them: each is read right, or refused with what helps."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_datasets import FPS, TASK, Kind, camera_images, vectors, write_dataset, write_video
from PIL import Image

from vla.base.errors import DatasetError
from vla.cache import CacheConfig, FeatureCache
from vla.embed import DatasetConfig, PixelsConfig, embed
from vla.embed.datasets import FrameSource, open_source
from vla.inspect import inspect
from vla.verify import verify

EPISODES = "meta/episodes/chunk-000/file-000.parquet"
LENGTHS, SIZE = (6, 4, 5), (16, 24)
TOP = "observation.images.top"
VIDEO: dict[str, Kind] = {"top": "video"}
IMAGE: dict[str, Kind] = {"top": "image"}
DEPTH = "observation.images.depth"


def opened(path: Path, **settings: object) -> FrameSource:
    return open_source(DatasetConfig.model_validate({"path": str(path), **settings}), workers=2)


def stream(source: FrameSource, name: str = "top", block: int = 4) -> np.ndarray:
    frames = range(sum(episode.length for episode in source.episodes))
    return np.concatenate([found.streams[name] for found in source.read(frames, block)])


def truth(episodes: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    return np.concatenate([camera_images(e, 0, LENGTHS[e], SIZE) for e in episodes])


def write(root: Path, version: str = "v3.0", per_file: int = 3, kinds: dict[str, Kind] = VIDEO) -> Path:
    return write_dataset(root, LENGTHS, SIZE, 3, version=version, cameras=kinds, episodes_per_file=per_file)


def change_rows(path: Path, **columns: Any) -> None:
    """Replace or add columns of a table."""
    table = pq.read_table(path).replace_schema_metadata(None)
    for name, values in columns.items():
        name, array = name.replace("__", "/"), values if isinstance(values, pa.Array) else pa.array(values)
        place = table.column_names.index(name) if name in table.column_names else None
        table = table.append_column(name, array) if place is None else table.set_column(place, name, array)
    pq.write_table(table, path)


def change_info(root: Path, **changes: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def add_feature(root: Path, key: str, feature: dict[str, Any]) -> None:
    change_info(
        root, features={**json.loads((root / "meta/info.json").read_text())["features"], key: feature}
    )


def tables(root: Path) -> list[Path]:
    return sorted(root.glob("data/*/*.parquet"))


def png16(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image.astype(np.uint16)).save(out, "PNG")
    return out.getvalue()


# -- where rows and episodes are


def test_rows_are_found_in_another_table_than_the_one_that_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", per_file=2)
    change_rows(root / EPISODES, data__file_index=[0, 0, 0])  # episode 2 lies in file 1
    source = opened(root)
    assert np.array_equal(stream(source), truth())
    assert np.array_equal(next(source.read(range(10, 15), 5)).streams["top"], truth((2,)))
    assert verify(root)["problems"] == []


def test_the_time_of_the_last_frame_may_stand_for_the_end_of_a_video(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", per_file=1)
    change_rows(root / EPISODES, **{f"videos__{TOP}__to_timestamp": [(n - 1) / FPS for n in LENGTHS]})
    assert np.array_equal(stream(opened(root)), truth())


def test_two_episodes_may_not_claim_the_same_part_of_a_video(tmp_path: Path) -> None:
    root = write(tmp_path / "demos")
    starts, ends = [0.0, 4 / FPS, 10 / FPS], [6 / FPS, 8 / FPS, 15 / FPS]
    change_rows(
        root / EPISODES,
        **{f"videos__{TOP}__from_timestamp": starts, f"videos__{TOP}__to_timestamp": ends},
    )
    with pytest.raises(DatasetError, match=r"episodes 0 and 1 both claim 0\.160 s of .*merge again"):
        _ = opened(root).episodes


def test_tables_where_lerobot_does_not_look_do_not_matter(tmp_path: Path) -> None:
    root = write(tmp_path / "demos")
    pq.write_table(pa.table({"episode_index": [0]}), root / "meta/episodes/episodes.parquet")
    assert len(opened(root).episodes) == 3


def test_a_count_that_disagrees_is_said_by_all_who_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "demos", kinds=IMAGE)
    change_info(root, total_episodes=7)
    said = "info.json says 7 episodes, the list of episodes has 3"
    assert said in inspect(root)["remarks"][0]
    assert said in verify(root)["remarks"][0]
    encoder = PixelsConfig(image_size=(8, 8))
    embed(DatasetConfig(path=str(root)), encoder, CacheConfig(path=str(tmp_path / "features")))
    assert said in capsys.readouterr().err


def test_episodes_without_frames_are_skipped_with_a_word(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", "v2.1", kinds=IMAGE)
    with (root / "meta/episodes.jsonl").open("a") as file:
        file.write('{"episode_index": 3, "tasks": [], "length": 0}\n')
    change_info(root, total_episodes=4)
    source = opened(root)
    assert [episode.index for episode in source.episodes] == [0, 1, 2]
    assert source.remarks == ("1 episodes have no frames and are skipped",)


def test_lines_may_be_formatted_over_several(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", "v2.1", kinds=IMAGE)
    path = root / "meta/episodes.jsonl"
    path.write_text("\n".join(json.dumps(json.loads(t), indent=2) for t in path.read_text().splitlines()))
    assert [episode.length for episode in opened(root).episodes] == list(LENGTHS)


def test_rows_without_frame_index_are_counted(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", "v2.0", kinds=IMAGE)
    for path in tables(root):
        pq.write_table(pq.read_table(path).drop_columns(["frame_index"]), path)
    source = opened(root)
    assert np.array_equal(stream(source), truth())
    assert np.array_equal(next(source.read(range(8, 12), 4)).streams["top"], truth()[8:12])


def test_columns_of_types_that_nobody_knows_do_not_matter(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", kinds=IMAGE)
    path = tables(root)[0]
    table = pq.read_table(path).append_column("odd", pa.array([{"a": [1]}] * 15))
    features = {"info": {"features": {"odd": {"_type": "Hologram"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)
    assert np.array_equal(stream(opened(root)), truth())


def test_a_column_may_have_another_list_type_in_every_file(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", per_file=1, kinds=IMAGE)
    kinds = [pa.list_(pa.float32(), 3), pa.large_list(pa.float32()), pa.list_(pa.float64())]
    for episode, (path, kind) in enumerate(zip(tables(root), kinds, strict=True)):
        state = vectors(episode, LENGTHS[episode], 3)[0]
        change_rows(path, **{"observation.state": pa.array(state.tolist(), kind)})
    due = np.concatenate([vectors(e, n, 3)[0] for e, n in enumerate(LENGTHS)])
    assert np.array_equal(stream(opened(root), "state", block=8), due)


def test_images_may_be_files_of_the_dataset(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", kinds=IMAGE)
    cells = []
    for k, image in enumerate(truth()):
        (root / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(root / f"images/{k}.png")
        cells.append({"bytes": None, "path": f"images/{k}.png"})
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    source, embedded = opened(root), opened(write(tmp_path / "other", kinds=IMAGE))
    change_rows(tables(root)[0], **{TOP: pa.array(cells, kind)})
    assert np.array_equal(stream(source), truth())
    assert len(set(source.contents(range(3)))) == len(set(embedded.contents(range(3)))) == 3


# -- time


def uneven(root: Path, late_s: float = 0.004) -> None:
    """Let the clock of the rows be up to so much late."""
    for path in tables(root):
        table = pq.read_table(path)
        late = late_s * np.random.default_rng(0).uniform(0, 1, len(table))
        change_rows(path, timestamp=pa.array(table["frame_index"].to_numpy() / FPS + late))


def test_rows_have_a_tolerance_of_their_own(tmp_path: Path) -> None:
    root = write(tmp_path / "demos")
    uneven(root)
    with pytest.raises(
        DatasetError, match=r"raise --set dataset\.timestamp_tolerance_s=…; if row k .*align=index"
    ):
        stream(opened(root))
    assert np.array_equal(stream(opened(root, timestamp_tolerance_s=0.005)), truth())


def test_a_raised_tolerance_takes_the_nearest_frame(tmp_path: Path) -> None:
    """The video has three frames for each row; those before the right one are within the tolerance too."""
    root = write(tmp_path / "demos", per_file=1)
    rng = np.random.default_rng(0)
    for episode, path in enumerate(sorted(root.glob("videos/*/*/*.mp4"))):
        images = camera_images(episode, 0, LENGTHS[episode], SIZE)
        noise = rng.integers(0, 256, (3 * len(images), *SIZE, 3), np.uint8)
        noise[::3] = images
        write_video(path, noise, 3 * FPS)
    assert np.array_equal(stream(opened(root, tolerance_s=0.018)), truth())
    assert np.array_equal(stream(opened(root, tolerance_s=0.018), block=1), truth())


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_by_index_row_k_has_frame_k_whatever_clocks_say(tmp_path: Path, version: str) -> None:
    root = write(tmp_path / "demos", version, per_file=1)
    for path in tables(root):
        change_rows(path, timestamp=pa.array(1.7e9 + np.arange(len(pq.read_table(path))) / 20))
    for episode, path in enumerate(sorted(root.glob("videos/**/*.mp4"))):
        write_video(path, camera_images(episode, 0, LENGTHS[episode], SIZE), FPS - 1)  # it drifts
    with pytest.raises(DatasetError, match="align=index"):
        stream(opened(root, timestamp_tolerance_s=1e10))
    source = opened(root, align="index")
    assert np.array_equal(stream(source), truth())
    assert np.array_equal(next(source.read(range(7, 9), 2)).streams["top"], truth()[7:9])
    assert len(set(source.contents(range(3)))) == 3


def test_by_index_a_video_that_is_too_short_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", "v2.1")
    path = sorted(root.glob("videos/**/*.mp4"))[1]
    write_video(path, camera_images(1, 0, 3, SIZE))
    with pytest.raises(DatasetError, match="episode 1, frame 3 is missing: the video has 3 frames"):
        stream(opened(root, align="index"))


# -- what to do


def write_tasks(root: Path, *texts: str) -> None:
    lines = [json.dumps({"task_index": k, "task": text}) for k, text in enumerate(texts)]
    (root / "meta/tasks.jsonl").write_text("\n".join(lines))


def test_the_task_is_that_of_the_frames_not_of_the_list(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", "v2.0", kinds=IMAGE)
    write_tasks(root, "pick the pear", "valid", "pick the nut")
    lines = [{"episode_index": e, "tasks": ["?", "valid"], "length": n} for e, n in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for path, number in zip(tables(root), (0, 2, 0), strict=True):
        change_rows(path, task_index=[number] * len(pq.read_table(path)))
    assert [e.task for e in opened(root).episodes] == ["pick the pear", "pick the nut", "pick the pear"]


def test_a_task_may_change_within_an_episode_and_the_cache_knows_where(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", kinds=IMAGE)
    pq.write_table(pa.table({"task_index": [0, 1], "task": ["reach", "lift"]}), root / "meta/tasks.parquet")
    change_rows(tables(root)[0], task_index=[0] * 4 + [1] * 2 + [1] * 4 + [0, 1, 0, 0, 0])
    config, encoder = DatasetConfig(path=str(root)), PixelsConfig(image_size=(8, 8))
    report = embed(config, encoder, CacheConfig(path=str(tmp_path / "features")))
    episodes = FeatureCache(Path(report.cache)).metadata.episodes
    assert [e.task for e in episodes] == ["reach", "lift", "reach"]
    assert [e.changes for e in episodes] == [((4, "lift"),), (), ((1, "lift"), (2, "reach"))]
    starts, rows = episodes.runs()
    told = [episodes.tasks[rows[np.searchsorted(starts, k, side="right") - 1]] for k in range(15)]
    assert told == ["reach"] * 4 + ["lift"] * 6 + ["reach", "lift", "reach", "reach", "reach"]


@pytest.mark.parametrize("tasks", ["do it", None])
def test_a_list_of_tasks_may_be_a_text_or_missing(tmp_path: Path, tasks: str | None) -> None:
    root = write(tmp_path / "demos", "v2.1", kinds=IMAGE)
    lines = [{"episode_index": e, "length": n, "tasks": tasks} for e, n in enumerate(LENGTHS)]
    kept = [{key: value for key, value in line.items() if value is not None} for line in lines]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, kept)))
    assert {episode.task for episode in opened(root).episodes} == {TASK}


# -- depth, sizes, orientation


def write_depth(root: Path) -> np.ndarray:
    """Add a column of 16-bit depth to a dataset of images; return it."""
    depth = np.random.default_rng(0).integers(0, 1 << 16, (15, *SIZE), np.uint16)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = pa.array([{"bytes": png16(image), "path": None} for image in depth], kind)
    change_rows(tables(root)[0], **{DEPTH: cells})
    add_feature(root, DEPTH, {"dtype": "image", "shape": [*SIZE, 3]})
    return depth


def test_depth_is_no_camera_unless_it_is_asked_for_as_depth(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", kinds=IMAGE)
    depth = write_depth(root)
    source = opened(root)
    assert source.camera_names == ("top",)
    assert "depth map and left out" in source.remarks[0]
    with pytest.raises(DatasetError, match=r"'depth' is a depth map, .*kind=\"depth\""):
        opened(root, cameras=["depth"])
    named = opened(root, streams={"range": {"key": DEPTH, "kind": "depth"}})
    assert np.array_equal(stream(named, "range"), depth[..., None].astype(np.float32))
    assert named.remarks == ()


def test_a_cached_depth_stream_is_what_the_dataset_holds(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", kinds=IMAGE)
    depth = write_depth(root)
    config = DatasetConfig.model_validate(
        {"path": str(root), "streams": {"range": {"key": DEPTH, "kind": "depth"}}}
    )
    report = embed(config, PixelsConfig(image_size=(8, 8)), CacheConfig(path=str(tmp_path / "features")))
    cache = FeatureCache(Path(report.cache))
    assert np.array_equal(cache.frame(9)["range"].numpy(), depth[9, ..., None].astype(np.float32))


def test_depth_of_another_size_than_promised_is_one_line(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", kinds=IMAGE)
    write_depth(root)
    add_feature(root, DEPTH, {"dtype": "image", "shape": [8, 8, 1]})
    source = opened(root, streams={"range": {"key": DEPTH, "kind": "depth"}})
    with pytest.raises(DatasetError, match="'range' at episode 0, frame 0 is 16 x 24 pixels"):
        stream(source, "range")


def test_odd_values_of_keys_that_only_inform_do_not_matter(tmp_path: Path) -> None:
    root = write(tmp_path / "demos")
    change_info(root, total_episodes="three")
    odd = {"dtype": "video", "shape": [*SIZE, 3], "info": ["mp4"], "is_depth_map": "no", "video_info": 1}
    add_feature(root, TOP, odd)
    source = opened(root)
    assert np.array_equal(stream(source), truth()) and source.remarks == ()


def test_depth_is_known_by_what_info_json_says_of_a_video(tmp_path: Path) -> None:
    root = write(tmp_path / "demos")
    add_feature(root, DEPTH, {"dtype": "video", "shape": [*SIZE, 1], "info": {"video.is_depth_map": True}})
    assert opened(root).camera_names == ("top",)


@pytest.mark.parametrize("kinds", [IMAGE, VIDEO], ids=["images", "videos"])
def test_a_camera_has_one_size_wherever_reading_begins(tmp_path: Path, kinds: dict[str, Kind]) -> None:
    root = write(tmp_path / "demos", "v2.1", kinds=kinds)
    other = write_dataset(tmp_path / "other", LENGTHS, (32, 48), 3, version="v2.1", cameras=kinds)
    for path in (*other.glob("data/*/episode_000001.parquet"), *other.glob("videos/*/*/episode_000001.mp4")):
        (root / path.relative_to(other)).write_bytes(path.read_bytes())
    message = r"episode 1, frame 0 is 32 x 48 pixels \(height x width\), the first one 16 x 24"
    with pytest.raises(DatasetError, match=message):
        list(opened(root).read(range(6, 10), 4))
    (problem,) = verify(root)["problems"]
    assert "the first one 16 x 24" in problem
    assert len(stream(opened(root, episodes=[1]))) == 4


def test_an_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", kinds=IMAGE)
    cells = []
    for image in truth():
        out, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 3  # upside down
        Image.fromarray(image[::-1, ::-1]).save(out, "PNG", exif=exif)
        cells.append({"bytes": out.getvalue(), "path": None})
    change_rows(tables(root)[0], **{TOP: cells})
    assert np.array_equal(stream(opened(root)), truth())


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix (a, b, c, d) into the track header of an mp4 file."""
    raw = bytearray(path.read_bytes())
    unity = b"".join(v.to_bytes(4, "big") for v in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    a, b, c, d = (v * (1 << 16) for v in matrix)
    turned = b"".join(v.to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    place = raw.index(unity, raw.index(b"tkhd"))
    raw[place : place + len(unity)] = turned
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("matrix", "quarters"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)]
)
def test_a_video_is_turned_as_its_display_matrix_says(
    tmp_path: Path, matrix: tuple[int, int, int, int], quarters: int
) -> None:
    """The matrix of a telephone held upright, (0, 1, -1, 0), turns a quarter clockwise."""
    root = write(tmp_path / "demos", per_file=1)
    for path in root.glob("videos/*/*/*.mp4"):
        turn(path, matrix)
    assert np.array_equal(stream(opened(root)), np.rot90(truth(), quarters, axes=(1, 2)))


# -- names


def test_a_camera_that_was_never_recorded_is_named_with_what_helps(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", "v2.1")
    add_feature(root, "observation.images.other", {"dtype": "video", "shape": [*SIZE, 3]})
    with pytest.raises(DatasetError, match=r"other/episode_000000\.mp4 is missing; .*--set dataset\.cameras"):
        opened(root).contents([0])
    assert np.array_equal(stream(opened(root, cameras=["top"])), truth())


def test_names_of_modality_json_are_slices_and_name_the_cameras(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", "v2.1")
    add_feature(root, "observation.images.other", {"dtype": "video", "shape": [*SIZE, 3]})
    modality = {
        "state": {"arm": {"start": 0, "end": 2}, "hand": {"start": 2, "end": 3}},
        "action": {"arm": {"start": 1, "end": 3, "original_key": "action"}},
        "video": {"ego": {"original_key": TOP}},
    }
    (root / "meta/modality.json").write_text(json.dumps(modality))
    state, action = vectors(0, 6, 3)
    block = next(opened(root).read(range(6), 6))
    assert np.array_equal(block.streams["state"], state)
    assert set(block.streams) == {"top", "state", "action"}
    named = opened(root, state_key="hand,arm", action_key="arm")
    block = next(named.read(range(6), 6))
    assert np.array_equal(block.streams["state"], state[:, [2, 0, 1]])
    assert np.array_equal(block.streams["action"], action[:, 1:])
    assert np.array_equal(named.vectors(0)["action"], action[:, 1:])


def test_state_and_action_may_be_joined_from_columns_and_slices(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", "v2.1", kinds=IMAGE)
    base = np.arange(30, dtype=np.float32).reshape(15, 2)
    for episode, path in enumerate(tables(root)):
        first = sum(LENGTHS[:episode])
        change_rows(path, base_action=pa.array(base[first : first + LENGTHS[episode]].tolist()))
    add_feature(root, "base_action", {"dtype": "float32", "shape": [2]})
    source = opened(root, action_key="action,base_action", state_key="observation.state[1:3]")
    action = np.concatenate([vectors(e, n, 3)[1] for e, n in enumerate(LENGTHS)])
    state = np.concatenate([vectors(e, n, 3)[0] for e, n in enumerate(LENGTHS)])
    assert np.array_equal(stream(source, "action"), np.concatenate([action, base], axis=1))
    assert np.array_equal(stream(source, "state"), state[:, 1:])
    with pytest.raises(DatasetError, match=r"'action\[1:9\]' is 1 to 9 of 'action', which has 3 values"):
        opened(root, action_key="action[1:9]")


def test_another_version_is_named_before_its_other_form(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text('{"codebase_version": "v1.6", "fps": 10, "video": true}')
    with pytest.raises(DatasetError, match=r"is a LeRobotDataset v1\.6; vla reads v3\.0"):
        opened(tmp_path)


def test_what_hardly_moves_is_said_without_statistics_in_the_dataset(tmp_path: Path) -> None:
    root = write(tmp_path / "demos", kinds=IMAGE)
    action = np.concatenate([vectors(e, n, 3)[1] for e, n in enumerate(LENGTHS)])
    action[:, 1] = 0.04 + 1e-5 * action[:, 1]
    change_rows(tables(root)[0], action=pa.array(action.tolist(), pa.list_(pa.float32())))
    assert inspect(root)["resting"] == ["action (of 3 dimensions, from 0): 1 hardly moved"]
    assert verify(root)["resting"] == ["action (of 3 dimensions, from 0): 1 hardly moved"]


def test_damage_is_called_damage_and_what_is_before_it_is_read(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "demos", (30,), (48, 64), 3, version="v2.1", cameras=VIDEO)
    (path,) = root.glob("videos/*/*/*.mp4")
    images = camera_images(0, 0, 30, (48, 64))
    write_video(path, images, codec="libx264", options={"g": "30", "bf": "0", "crf": "12"})
    whole = stream(opened(root))
    raw = bytearray(path.read_bytes())
    start = raw.index(b"mdat") + 4
    end = start + int.from_bytes(raw[start - 8 : start - 4], "big") - 8
    middle = (start + end) // 2
    raw[middle : middle + 40] = bytes(value ^ 0x55 for value in raw[middle : middle + 40])
    path.write_bytes(raw)
    with pytest.raises(
        DatasetError, match=r"frame (\d+) cannot be decoded: the video is damaged there"
    ) as caught:
        stream(opened(root))
    frame = int(str(caught.value).split("frame ")[1].split()[0])
    assert 5 < frame < 25
    before = np.concatenate([b.streams["top"] for b in opened(root).read(range(frame), 1)])
    assert np.array_equal(before, whole[:frame])
