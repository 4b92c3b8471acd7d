"""What can go wrong while a dataset is embedded, and that nothing is lost or mixed up by it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fake_faults import digests, file_size_limit, flip_bit, read_only, truncate
from fakes import fake_images, shard_file, write_dataset

from vla.base.errors import CacheError, DatasetError, EncoderError, VlaError
from vla.cache import CacheConfig, FeatureCache
from vla.cache.part_writer import PartWriter
from vla.embed import DatasetConfig, FrozenEncoder, SiglipConfig, embed
from vla.embed.batch_size import measured_rate

TABLE = "data/chunk-000/file-000.parquet"


def load(encoder: Path, batch_size: int = 0) -> FrozenEncoder:
    return FrozenEncoder.load(SiglipConfig(id=str(encoder), device="cpu", batch_size=batch_size), ("top",))


def run(dataset: Path, encoder: Path, out: Path) -> Path:
    report = embed(
        DatasetConfig(path=str(dataset)),
        SiglipConfig(id=str(encoder), device="cpu"),
        CacheConfig(path=str(out), shard_frames=4),
    )
    return Path(report.cache)


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    """Return a small dataset that may be changed."""
    return write_dataset(tmp_path / "demos", (5, 4), (16, 16), cameras={"top": "image"}, episodes_per_file=2)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("harm", [flip_bit, truncate, os.unlink])
def test_only_the_damaged_shard_is_made_again_with_the_same_bytes(
    harm: Callable[[Path], object], demos: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    cache = run(demos, encoder_dir, tmp_path / "out")
    before, untouched = digests(cache), stamps(cache)
    harm(shard_file(cache, 1))
    assert run(demos, encoder_dir, tmp_path / "out") == cache
    assert digests(cache) == before
    assert {name for name, stamp in stamps(cache).items() if stamp != untouched[name]} == {
        "00001.safetensors"
    }


def test_a_damaged_header_is_made_again_and_nothing_is_encoded(
    demos: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    cache = run(demos, encoder_dir, tmp_path / "out")
    before, shards = digests(cache), stamps(cache / "parts")
    truncate(cache / "cache.json")
    run(demos, encoder_dir, tmp_path / "out")
    assert (digests(cache), stamps(cache / "parts")) == (before, shards)


def during_the_first_shard(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen when the first shard has just been written."""
    write = PartWriter.write
    acted: list[object] = []

    def wrapped(self: PartWriter, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        write(self, shard, arrays)
        if not acted:
            acted.append(act())

    monkeypatch.setattr(PartWriter, "write", wrapped)


@pytest.mark.parametrize("fault", ["changed", "vanished"])
def test_a_dataset_that_changes_midway_is_not_cached_under_the_old_name(
    fault: str, demos: Path, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digests(run(demos, encoder_dir, tmp_path / "whole"))
    table = demos / TABLE
    good = table.read_bytes()
    harm = table.unlink if fault == "vanished" else lambda: table.write_bytes(good + b" ")
    with monkeypatch.context() as patch:
        during_the_first_shard(patch, harm)
        with pytest.raises(DatasetError, match=rf"demos: {TABLE} has {fault} while it was read"):
            run(demos, encoder_dir, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*.safetensors")] == ["00000.safetensors"]
    assert not list((tmp_path / "out").rglob("*.json"))
    table.write_bytes(good)
    assert digests(run(demos, encoder_dir, tmp_path / "out")) == whole


def test_a_full_disk_keeps_finished_shards_and_room_lets_it_go_on(
    demos: Path, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digests(run(demos, encoder_dir, tmp_path / "whole"))
    write = PartWriter.write

    def full(self: PartWriter, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        with file_size_limit(1 << 20 if shard == 0 else 100):
            write(self, shard, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(PartWriter, "write", full)
        with pytest.raises(VlaError, match=r"00001\.safetensors cannot be written .*make room"):
            run(demos, encoder_dir, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*.safetensors")] == ["00000.safetensors"]
    assert digests(run(demos, encoder_dir, tmp_path / "out")) == whole


def test_a_place_that_may_not_be_written_is_refused_before_anything_is_encoded(
    demos: Path, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrozenEncoder, "forward", lambda *_: pytest.fail("encoded"))
    (tmp_path / "out").mkdir()
    with pytest.raises(VlaError, match=r"cannot be written \(Permission denied"), read_only(tmp_path / "out"):
        run(demos, encoder_dir, tmp_path / "out")


def scarce(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
    """Let memory suffice for so many images a pass."""
    forward = FrozenEncoder.forward

    def limited(self: FrozenEncoder, views: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        if sum(map(len, views.values())) > most:
            raise error
        return forward(self, views)

    monkeypatch.setattr(FrozenEncoder, "forward", limited)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_batch_that_is_too_large_is_halved_until_it_fits(
    error: Exception, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = fake_images(3, 11)
    by_two = load(encoder_dir, batch_size=2).encode({"top": frames})
    scarce(monkeypatch, 3, error)
    halved = load(encoder_dir, batch_size=8).encode({"top": frames})
    # Which images share a pass decides the last digits.
    torch.testing.assert_close(halved["top"], by_two["top"], atol=2e-3, rtol=0)
    said = capsys.readouterr().err
    assert "out of memory at 8 images a pass; going on with 4" in said
    assert "going on with 2, next time: --set encoder.batch_size=2" in said


def test_two_threads_without_memory_for_the_same_batch_halve_it_once(encoder_dir: Path) -> None:
    encoder = load(encoder_dir, batch_size=8)
    encoder._halve_batch(8)
    encoder._halve_batch(8)
    assert encoder.batch_size == 4


def test_measuring_a_batch_size_does_not_halve_it(encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(encoder_dir, batch_size=8)
    assert measured_rate(encoder, 3, seconds=0.01) > 0
    scarce(monkeypatch, 3, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(torch.OutOfMemoryError):
        measured_rate(encoder, 4)
    assert encoder.batch_size == 8


def test_no_memory_for_a_single_image_is_one_line(encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(EncoderError, match=r"cpu has no memory for a single image .* --device cpu"):
        load(encoder_dir).encode({"top": fake_images(0, 1)})


def test_other_errors_of_a_forward_pass_are_not_taken_for_want_of_memory(
    encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce(monkeypatch, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        load(encoder_dir).encode({"top": fake_images(0, 1)})


@pytest.mark.parametrize(("key", "name"), [("observation.state", "state"), ("action", "action")])
def test_a_vector_that_is_not_finite_is_named_and_not_cached(
    key: str, name: str, demos: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    table = pq.read_table(demos / TABLE)
    values = table[key].to_pylist()
    values[7][3] = float("nan")
    where = table.column_names.index(key)
    pq.write_table(
        table.set_column(where, table.schema.field(key), pa.array(values, table[key].type)), demos / TABLE
    )
    with pytest.raises(CacheError, match=rf"demos: '{name}' is not finite at episode 1, frame 2"):
        run(demos, encoder_dir, tmp_path / "out")


def test_a_feature_that_is_not_finite_is_named_at_once(
    demos: Path, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, passes = FrozenEncoder.forward, []

    def broken(self: FrozenEncoder, views: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        passes.append(len(views["top"]))
        results = forward(self, views)
        results["top"][2] = torch.inf
        return results

    monkeypatch.setattr(FrozenEncoder, "forward", broken)
    with pytest.raises(CacheError, match="'top' is not finite at episode 0, frame 2"):
        run(demos, encoder_dir, tmp_path / "out")
    assert len(passes) <= 2  # the next was at work already; there are three


@pytest.mark.parametrize("lengths", [(1,), (1, 1, 2)])
def test_episodes_of_a_single_frame_and_one_camera_are_embedded(
    lengths: tuple[int, ...], encoder_dir: Path, tmp_path: Path
) -> None:
    demos = write_dataset(tmp_path / "demos", lengths, (16, 16), 3, cameras={"top": "image"})
    cache = FeatureCache(run(demos, encoder_dir, tmp_path / "out"))
    assert (cache.num_frames, cache.metadata.encoded) == (sum(lengths), ("top",))
    assert cache.metadata.statistics["action"].std == (0.0, 0.0, 0.0) or sum(lengths) > 1
