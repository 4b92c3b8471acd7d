"""`vla verify`: what it finds in caches, runs and datasets, and how it ends."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_datasets import write_hdf5
from fake_faults import flip_bit
from fakes import (
    CAMERAS,
    fake_spec,
    shard_file,
    write_cache,
    write_dataset,
    write_vision_checkpoint,
)

from vla.advice import repair_command
from vla.base.errors import ConfigError
from vla.cli import main
from vla.embed.datasets.dataset_config import dataset_of

TABLE = "data/chunk-000/file-001.parquet"


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "demos", (5, 4), (16, 16), 3, cameras={"top": "image", "front": "image"})


def vla(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it wrote."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def embedded(demos: Path, encoder: Path, capsys: pytest.CaptureFixture[str], *options: object) -> Path:
    out = demos.with_name("features")
    code, said, err = vla(
        capsys, "embed", "--dataset", demos, "--encoder", encoder, "--out", out, "--device", "cpu", "--json",
        "--set", "cache.shard_frames=4", *options
    )  # fmt: skip
    assert code == 0, err
    return Path(json.loads(said)["cache"])


def verified(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, err = vla(capsys, "verify", *arguments, "--json")
    report: dict[str, Any] = json.loads(out)
    assert code == (1 if report["problems"] else 0), err
    return report


def test_a_whole_cache_encoded_again_gives_what_is_stored(
    demos: Path, encoder_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = embedded(demos, encoder_dir, capsys, "--augment", "1")
    report = verified(capsys, cache, "--reencode", 5)
    assert (report["kind"], report["problems"], report["reencoded_frames"]) == ("feature cache", [], 5)
    assert report["largest_difference"] < 0.5


def test_frames_are_read_again_as_they_were_for_the_cache(
    tmp_path: Path, encoder_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_with = ["--set", "dataset.fps=50", "--set", "dataset.color=bgr"]
    swapped = embedded(write_hdf5(tmp_path / "hdf5", (3,)), encoder_dir, capsys, *made_with)
    assert verified(capsys, swapped, "--reencode", 2)["problems"] == []


def test_times_are_held_against_the_tolerance_that_the_cache_was_made_with(
    demos: Path, encoder_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (demos / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        where, field = table.column_names.index("timestamp"), table.schema.field("timestamp")
        late = pa.array(np.asarray(table["timestamp"]) + np.float32(0.001), field.type)
        pq.write_table(table.set_column(where, field, late), path)
    cache = embedded(demos, encoder_dir, capsys, "--set", "dataset.tolerance_s=0.01")
    assert verified(capsys, cache, "--reencode", 2)["problems"] == []


def test_the_dataset_of_a_cache_is_the_commit_that_was_read(tmp_path: Path) -> None:
    spec = fake_spec()
    hub = spec.dataset.model_copy(update={"path": "me/demos", "revision": "c" * 40})
    cache = write_cache(tmp_path / "cache", fake_spec(dataset=hub))
    without_settings = dataset_of(cache)
    assert (without_settings.path, without_settings.revision) == ("me/demos", "c" * 40)
    settings = cache.folder / "pipeline.toml"
    settings.write_text('[dataset]\npath = "me/demos"\nrevision = "main"\ntolerance_s = 0.5\n')
    found = dataset_of(cache)
    assert (found.revision, found.tolerance_s, found.cameras) == ("c" * 40, 0.5, CAMERAS)
    moved = dataset_of(cache, "elsewhere")
    assert (moved.path, moved.revision, moved.tolerance_s) == ("elsewhere", None, 0.5)
    settings.write_text("[dataset]\ncolour = 1\n")
    with pytest.raises(ConfigError, match=r"unknown key 'dataset\.colour'; did you mean 'color'"):
        dataset_of(cache)


def test_features_of_other_frames_do_not_pass_for_the_stored_ones(
    demos: Path, encoder_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = embedded(demos, encoder_dir, capsys)
    monkeypatch.setattr(
        "vla.embed.frozen_encoder.resize", lambda frames, size: np.zeros((len(frames), *size, 3), np.uint8)
    )
    report = verified(capsys, cache, "--reencode", 9)
    assert report["largest_difference"] > 2
    assert "times as far from what the encoder gives now as is allowed" in report["problems"][0]


def test_damage_is_printed_with_the_command_that_mends_it(
    demos: Path, encoder_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = embedded(demos, encoder_dir, capsys)
    before = shard_file(cache, 1).read_bytes()
    flip_bit(shard_file(cache, 1))
    code, out, _ = vla(capsys, "verify", cache)
    assert code == 1
    last = out.splitlines()[-1]
    assert "00001.safetensors has other bytes than cache.json promises" in last
    command = last.partition(": vla ")[2].split()
    assert vla(capsys, *command)[0] == 0
    assert shard_file(cache, 1).read_bytes() == before
    assert vla(capsys, "verify", cache)[0] == 0


def test_the_command_that_mends_a_cache_does_so_from_anywhere_and_on_any_device(
    demos: Path, encoder_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = embedded(demos.relative_to(Path.cwd()), encoder_dir, capsys).absolute()
    before = {
        path: path.read_bytes()
        for path in (cache / "pipeline.toml", *cache.glob("parts/*/*.*"), *cache.glob("parts/*/shards/*"))
    }
    flip_bit(shard_file(cache, 1))
    (elsewhere := demos.with_name("elsewhere")).mkdir()
    monkeypatch.chdir(elsewhere)
    # As on a GPU: what is not said is bfloat16.
    monkeypatch.setattr(
        "vla.embed.encoders.vision_tower.choose_dtype",
        lambda name, device: "bfloat16" if name == "auto" else name,
    )
    assert vla(capsys, *shlex.split(repair_command(cache))[1:])[0] == 0
    assert {path: path.read_bytes() for path in before} == before
    assert [path.parent for path in cache.parent.glob("*/cache.json")] == [cache]


@pytest.mark.parametrize("changed", ["dataset", "encoder"])
def test_a_cache_is_only_compared_with_what_it_was_made_from(
    changed: str, demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = write_vision_checkpoint(tmp_path / "encoder")
    cache = embedded(demos, encoder, capsys)
    other = write_dataset(tmp_path / "other", (4, 5), (16, 16), 3, cameras={"top": "image", "front": "image"})
    named = (
        ["--dataset", other]
        if changed == "dataset"
        else ["--encoder", write_vision_checkpoint(tmp_path / "e2", 1)]
    )
    code, _, err = vla(capsys, "verify", cache, "--reencode", 2, *named)
    assert code == 1
    assert f"was made {'from' if changed == 'dataset' else 'by'}" in err and f"--{changed} DIR" in err


def test_every_broken_episode_of_a_dataset_is_named(demos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verified(capsys, demos)["problems"] == []
    table = pq.read_table(demos / TABLE)
    values = table["action"].to_pylist()
    values[2][1] = float("inf")
    column = pa.array(values, table["action"].type)
    where = table.column_names.index("action")
    pq.write_table(table.set_column(where, table.schema.field("action"), column), demos / TABLE)
    (demos / "data/chunk-000/file-000.parquet").unlink()
    first, second = verified(capsys, demos)["problems"]
    assert "file-000.parquet is missing" in first
    assert "action is not finite at episode 1, frame 2" in second


def test_what_is_nothing_says_what_could_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = vla(capsys, "verify", tmp_path)
    assert code == 1
    assert "vla verify takes a cache (cache.json), a run (pipeline.toml) or a dataset" in err
