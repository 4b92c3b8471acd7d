"""A dataset in GR00T's dialect, the whole way: read, held against another reader, embedded, trained on.

The schema is that of Isaac-GR00T's demo_data/robot_sim.PickNPlace: v2.0, float64, columns of annotations, no
frame_index, tasks [text, "valid"], slices of state and action in `modality.json`, a camera without files.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_datasets import TABLE_V21, VIDEO_V21, fake_images, write_video

from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig

LENGTHS, FPS = (7, 9), 20
EGO = "observation.images.ego_view"
MODALITY = {
    "state": {"left_arm": {"start": 0, "end": 3}, "left_hand": {"start": 3, "end": 5}},
    "action": {"left_arm": {"start": 0, "end": 3}, "left_hand": {"start": 3, "end": 5}},
    "video": {"ego_view": {"original_key": EGO}},
    "annotation": {"human.action.task_description": {}, "human.validity": {}},
}
TASKS = ("pick the pear from the counter and place it in the plate", "valid", "pick the nut")


def number(kind: str, *shape: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape)}


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    root = tmp_path / "robot_sim.PickNPlace"
    video = {"dtype": "video", "shape": [32, 32, 3], "names": ["height", "width", "channel"]}
    features = {
        EGO: video,
        "observation.images.wrist_view": video,
        "observation.state": number("float64", 5),
        "action": number("float64", 5),
        "timestamp": number("float64", 1),
        "annotation.human.action.task_description": number("int64", 1),
        "annotation.human.validity": number("int64", 1),
        "episode_index": number("int64", 1),
        "index": number("int64", 1),
        "task_index": number("int64", 1),
        "next.reward": number("float64", 1),
        "next.done": number("bool", 1),
    }
    (root / "meta").mkdir(parents=True)
    info = {"codebase_version": "v2.0", "fps": float(FPS), "chunks_size": 1000, "features": features}
    info |= {"data_path": TABLE_V21, "video_path": VIDEO_V21, "total_episodes": len(LENGTHS)}
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/modality.json").write_text(json.dumps(MODALITY))
    write_lines(root / "meta/tasks.jsonl", [{"task_index": k, "task": t} for k, t in enumerate(TASKS)])
    episodes = [
        {"episode_index": e, "tasks": [TASKS[2 * e], "valid"], "length": n} for e, n in enumerate(LENGTHS)
    ]
    write_lines(root / "meta/episodes.jsonl", episodes)
    for episode, length in enumerate(LENGTHS):
        rng, place = np.random.default_rng(episode), {"episode_chunk": 0, "episode_index": episode}
        columns = {
            "observation.state": pa.array(rng.normal(size=(length, 5)).tolist()),
            "action": pa.array(rng.normal(size=(length, 5)).tolist()),
            "timestamp": pa.array(np.arange(length) / FPS),
            "annotation.human.action.task_description": pa.array([2 * episode] * length),
            "annotation.human.validity": pa.array([1] * length),
            "episode_index": pa.array([episode] * length),
            "index": pa.array(np.arange(length) + sum(LENGTHS[:episode])),
            "task_index": pa.array([2 * episode] * length),
            "next.reward": pa.array([0.0] * length),
            "next.done": pa.array([False] * length),
        }
        path = root / TABLE_V21.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        write_video(
            root / VIDEO_V21.format(video_key=EGO, **place), fake_images(episode, length, (32, 32)), FPS
        )
    return root


def write_lines(path: Path, items: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def read_apart(root: Path, column: str) -> np.ndarray:
    """Return a column of all episodes as pyarrow alone reads it."""
    return np.concatenate(
        [np.array(pq.ParquetFile(p).read()[column].to_pylist()) for p in sorted(root.rglob("*.parquet"))]
    )


def test_values_are_those_of_another_reader(demos: Path) -> None:
    source = open_source(DatasetConfig(path=str(demos)), workers=1)
    assert source.camera_names == ("ego_view",)
    assert [episode.task for episode in source.episodes] == [TASKS[0], TASKS[2]]
    (block,) = source.read(range(sum(LENGTHS)), sum(LENGTHS))
    for stream, column in (("state", "observation.state"), ("action", "action")):
        assert np.array_equal(block.streams[stream], read_apart(demos, column).astype(np.float32))
    frames = []
    for path in sorted(demos.rglob("*.mp4")):
        with av.open(str(path)) as container:
            frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(block.streams["ego_view"], np.stack(frames))


def test_a_policy_trains_on_slices_of_it(
    demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vla: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert vla("inspect", demos)["tasks"] == [TASKS[2], TASKS[0]]
    keys = ["--set", "dataset.state_key=left_hand,left_arm", "--set", "dataset.action_key=left_arm"]
    made = vla("embed", "--dataset", demos, "--encoder", "siglip2-tiny-random", "--out", "features", *keys)
    assert made["streams"] == ["ego_view", "state", "action"]
    sizes = {"per_view_dim": 4, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}
    sets = [f"--set=policy.{key}={value}" for key, value in sizes.items()]
    sets += ["--set=train.val_episodes=1", "--set=train.rollout_every=0", "--set=train.batch_size=4"]
    assert vla("train", "--cache", "features", "--out", "run", "--steps", 3, *sets)["steps"] == 3
    assert vla("verify", made["cache"], "--reencode", 3)["problems"] == []
