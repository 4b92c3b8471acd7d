"""What makes another cache, and what does not: a table."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import write_dataset, write_vision_checkpoint
from safetensors.numpy import load_file, save_file

from vla.base.errors import EncoderError
from vla.cache import Augmentation, CacheConfig
from vla.embed import DatasetConfig, FrozenEncoder, SiglipConfig
from vla.embed.datasets import open_source
from vla.embed.engine import plan_cache

Settings = dict[str, dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return a configuration with a dataset and an encoder that may be changed."""
    cameras: Any = {"top": "image", "front": "image"}
    demos = write_dataset(tmp_path / "demos", (5, 4), (16, 16), 3, cameras=cameras)
    encoder = write_vision_checkpoint(tmp_path / "encoder")
    return {
        "dataset": {"path": str(demos)},
        "encoder": {"id": str(encoder), "device": "cpu"},
        "cache": {"path": "out"},
        "augment": {},
    }


def fingerprint(settings: Settings) -> str:
    source = open_source(
        DatasetConfig.model_validate(settings["dataset"]), settings["encoder"].get("workers", 0)
    )
    encoder = FrozenEncoder.load(SiglipConfig.model_validate(settings["encoder"]), source.camera_names)
    cache = CacheConfig.model_validate(settings["cache"])
    augmentation = Augmentation.model_validate(settings["augment"])
    contents = source.contents(range(len(source.episodes)))
    return plan_cache(source, contents, encoder, cache, augmentation).fingerprint


def put(table: str, **values: Any) -> Callable[[Settings], object]:
    """Return a change of configuration."""
    return lambda settings: settings[table].update(values)


def move(table: str, key: str) -> Callable[[Settings], object]:
    """Return a change that moves the dataset or the encoder elsewhere."""

    def change(settings: Settings) -> None:
        old = Path(settings[table][key])
        settings[table][key] = str(shutil.move(old, old.with_name("elsewhere")))

    return change


def touch(settings: Settings) -> None:
    for path in Path(settings["dataset"]["path"]).rglob("*"):
        path.touch()


def change_weight(settings: Settings) -> None:
    path = Path(settings["encoder"]["id"]) / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    name = next(name for name in tensors if "layers.0" in name and name.endswith("bias"))
    tensors[name][0] += 1e-3
    save_file(tensors, path, metadata={"format": "pt"})


def change_layer_norm(settings: Settings) -> None:
    path = Path(settings["encoder"]["id"]) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layer_norm_eps": 1e-3}))


def change_mean(settings: Settings) -> None:
    text = json.dumps({"image_mean": [0.4, 0.5, 0.5]})
    (Path(settings["encoder"]["id"]) / "preprocessor_config.json").write_text(text)


def change_image(settings: Settings) -> None:
    path = Path(settings["dataset"]["path"]) / "data/chunk-000/file-001.parquet"
    table, key = pq.read_table(path), "observation.images.top"
    cells, where = table[key].to_pylist(), table.column_names.index(key)
    cells[2]["bytes"] += b"\0"
    column = pa.array(cells, table[key].type)
    pq.write_table(table.set_column(where, table.schema.field(key), column), path)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(move("dataset", "path"), id="dataset elsewhere"),
        pytest.param(move("encoder", "id"), id="encoder elsewhere"),
        pytest.param(touch, id="times of the files"),
        pytest.param(put("encoder", batch_size=1), id="batch size"),
        pytest.param(put("encoder", workers=1), id="workers"),
        pytest.param(put("encoder", dtype="float32"), id="dtype named that auto takes"),
        pytest.param(put("cache", shard_frames=2), id="shard size"),
        pytest.param(put("cache", path="elsewhere"), id="folder of caches"),
        pytest.param(put("dataset", cameras=["top", "front"]), id="cameras named that empty takes"),
        pytest.param(put("dataset", tolerance_s=1e-3), id="tolerance of timestamps"),
        pytest.param(put("augment", seed=5, shift=0.1), id="augmentation without variants"),
    ],
)
def test_what_does_not_change_features_is_the_same_cache(
    settings: Settings, change: Callable[..., Any]
) -> None:
    before = fingerprint(settings)
    change(settings)
    assert fingerprint(settings) == before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change_image, id="a byte of an image"),
        pytest.param(put("dataset", cameras=["front", "top"]), id="order of cameras"),
        pytest.param(put("dataset", cameras=["top"]), id="choice of cameras"),
        pytest.param(put("dataset", episodes=[1]), id="choice of episodes"),
        pytest.param(put("dataset", state_key="action"), id="state key"),
        pytest.param(put("dataset", action_key="observation.state"), id="action key"),
        pytest.param(change_weight, id="a weight"),
        pytest.param(change_layer_norm, id="architecture"),
        pytest.param(change_mean, id="mean of the pixels"),
        pytest.param(put("encoder", pool="mean"), id="pooling"),
        pytest.param(put("encoder", dtype="bfloat16"), id="arithmetic"),
        pytest.param(put("augment", variants=1), id="augmentation"),
        pytest.param(put("dataset", streams={"pose": {"key": "action", "kind": "vector"}}), id="a sensor"),
    ],
)
def test_what_changes_features_is_another_cache(settings: Settings, change: Callable[..., Any]) -> None:
    before = fingerprint(settings)
    change(settings)
    assert fingerprint(settings) != before


@pytest.mark.parametrize("text", ["[]", '{"image_mean": "abc"}', '{"image_mean": 5}', "{", "[" * 100_000])
def test_a_preprocessor_configuration_of_the_wrong_form_is_one_line(settings: Settings, text: str) -> None:
    (Path(settings["encoder"]["id"]) / "preprocessor_config.json").write_text(text)
    with pytest.raises(EncoderError, match=r"encoder: preprocessor_config\.json") as caught:
        fingerprint(settings)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
