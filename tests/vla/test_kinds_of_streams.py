"""The vocabulary, the whole way: frames as they are, points and series go from a dataset to actions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_datasets import write_dataset
from fake_env import SENSORS_ID

from vla.cache import FeatureCache

SENSORS = """
[dataset.streams]
lidar = { key = "observation.lidar", kind = "points" }
imu = { key = "observation.imu", kind = "series" }
[policy]
per_view_dim = 4
cond_dim = 8
n_emb = 16
n_layer = 1
n_head = 2
[train]
batch_size = 4
val_episodes = 1
rollout_every = 0
[rollout]
videos = 0
"""


@pytest.mark.parametrize("encoder", ["pixels", pytest.param("siglip2-tiny-random", marks=pytest.mark.slow)])
def test_a_dataset_with_sensors_is_embedded_trained_on_and_rolled_out(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vla: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)

    Path("pipeline.toml").write_text(SENSORS)
    shapes = {"lidar": (8, 4), "imu": (5, 6)}
    write_dataset(Path("demos"), (6, 5), (32, 32), 3, cameras={"top": "image"}, sensors=shapes)
    size = ["--set", "encoder.image_size=[24, 24]"] if encoder == "pixels" else []
    made = vla("embed", "--dataset", "demos", "--encoder", encoder, "--out", "features", *size)
    assert made["streams"] == ["top", "lidar", "imu", "state", "action"]

    streams = FeatureCache("features").streams
    kinds = [(stream.kind, stream.dtype, stream.shape) for stream in streams.values()]
    frame = ("image", "uint8", (24, 24, 3)) if encoder == "pixels" else ("tokens", "float16", (1, 128))
    assert kinds[:3] == [frame, ("points", "float32", (8, 4)), ("series", "float32", (5, 6))]

    assert vla("train", "--cache", "features", "--out", "run", "--steps", 3)["steps"] == 3
    info = vla("rollout", "run", "--env", SENSORS_ID, "--episodes", 2)
    assert info["aggregated"]["n_episodes"] == 2
