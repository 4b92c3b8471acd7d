"""The feature cache: round trips, resuming, bytes on disk, refusals."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import CAMERAS, fake_frames, fake_identity, fake_spec, shard_file, write_cache

from vla.base.errors import CacheError
from vla.cache import Augmentation, CacheWriter, FeatureCache, Stream
from vla.cache.part_writer import PartWriter

LIDAR = Stream(name="lidar", kind="points", dtype="float32", shape=(5, 4), key="observation.lidar")
IMU = Stream(name="imu", kind="series", dtype="float32", shape=(3, 6), key="observation.imu")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_features_survive_a_round_trip(tmp_path: Path) -> None:
    spec = fake_spec()
    cache = write_cache(tmp_path, spec)
    frames = torch.tensor([20, 0, 7, 8, 7])
    stored = np.concatenate([fake_frames(spec, shard)["top"] for shard in range(3)])
    found = cache.rows("top", frames)
    assert np.array_equal(found.numpy(), stored[frames.numpy(), 0])


def test_state_and_action_come_back_in_frame_order(tmp_path: Path) -> None:
    spec = fake_spec()
    cache = write_cache(tmp_path, spec)
    parts = [fake_frames(spec, shard) for shard in range(3)]
    for name in ("state", "action"):
        whole = np.concatenate([part[name] for part in parts])
        assert np.array_equal(cache.all(name).numpy(), whole)
        assert np.array_equal(cache.rows(name, torch.tensor([20, 3])).numpy(), whole[[20, 3]])


def test_an_interrupted_cache_resumes_at_the_missing_shard_with_the_same_bytes(tmp_path: Path) -> None:
    spec = fake_spec()
    write_cache(tmp_path / "whole", spec)
    writer = CacheWriter(tmp_path / "parts", spec)
    writer.write(0, fake_frames(spec, 0))
    writer.write(2, fake_frames(spec, 2))
    again = CacheWriter(tmp_path / "parts", spec)
    assert again.missing_shards() == [1]
    again.write(1, fake_frames(spec, 1))
    again.finish()
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    part = PartWriter(tmp_path, fake_spec().part)
    place = part.path(0).parent
    place.mkdir(parents=True)
    (place / ".00000.safetensors.123.tmp").write_bytes(b"half")
    (tmp_path / ".cache.json.123.tmp").write_bytes(b"half")
    part.remove_leftovers()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_shard_of_another_cache_counts_as_missing(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path, fake_spec())
    writer.write(0, fake_frames(fake_spec(), 0))
    other = fake_spec(cameras=("top", "r_vis", "front"))
    assert CacheWriter(tmp_path, other).missing_shards() == [0, 1, 2]


def test_shards_are_plain_safetensors_with_the_documented_tensors(tmp_path: Path) -> None:
    write_cache(tmp_path)
    raw = shard_file(tmp_path).read_bytes()
    (header_size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + header_size])
    assert json.loads(header.pop("__metadata__")["shard"])["first_frame"] == 0
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()} == {
        **{camera: ("F16", [8, 1, 1, 8]) for camera in CAMERAS},
        "state": ("F32", [8, 16]),
        "action": ("F32", [8, 16]),
        "episode_index": ("I32", [8]),
        "frame_index": ("I32", [8]),
    }


def test_statistics_are_those_of_numpy_over_all_frames(tmp_path: Path) -> None:
    spec = fake_spec()
    cache = write_cache(tmp_path, spec)
    parts = [fake_frames(spec, shard) for shard in range(3)]
    action = np.concatenate([part["action"] for part in parts]).astype(np.float64)
    found = cache.metadata.statistics["action"]
    np.testing.assert_allclose(found.mean, action.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, action.std(0), rtol=1e-12)
    assert found.q99 == pytest.approx(np.quantile(action, 0.99, axis=0).tolist())
    features = np.concatenate([part["front"] for part in parts]).reshape(-1, 8).astype(np.float64)
    found = cache.metadata.statistics["front"]
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.std, features.std(0), rtol=1e-9)
    assert (found.min, found.max) == (tuple(features.min(0)), tuple(features.max(0)))
    assert found.q01 is None and found.count == 21


def test_statistics_of_images_and_sensors_are_those_of_numpy_too(tmp_path: Path) -> None:
    made = fake_identity(type="pixels", weights_sha256=None, dtype="uint8", settings={"image_size": [4, 6]})
    pixels = Stream(name="wrist", kind="image", dtype="uint8", shape=(4, 6, 3), made_by=made.digest)
    spec = fake_spec(encoder=made, cameras=(), sensors=(pixels, LIDAR, IMU), encoders={made.digest: made})
    cache = write_cache(tmp_path, spec)
    for name in ("wrist", "lidar", "imu"):
        values = np.concatenate([fake_frames(spec, shard)[name] for shard in range(3)])
        rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
        found = cache.metadata.statistics[name]
        np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-6)
        np.testing.assert_allclose(found.std, rows.std(0), rtol=1e-6)
        assert (found.min, found.max) == (tuple(rows.min(0)), tuple(rows.max(0)))


def test_a_feature_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    spec = fake_spec()
    frames = fake_frames(spec, 1)
    frames["top"][5, 0, 0, 3] = np.nan
    with pytest.raises(CacheError, match=r"data/fake: 'top' is not finite at episode 1, frame 1"):
        CacheWriter(tmp_path, spec).write(1, frames)
    assert not list(tmp_path.rglob("*.safetensors"))


SPEC = fake_spec()
COLUMN = SPEC.dataset.model_copy(update={"keys": {**SPEC.dataset.keys, "state": "observation.qpos"}})


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"shard_frames": 3}, True),
        ({"dataset": SPEC.dataset.model_copy(update={"path": "elsewhere"})}, True),
        ({"encoder": fake_identity(id="renamed", revision="abc")}, True),
        ({"dataset": SPEC.dataset.model_copy(update={"content_sha256": "c" * 64})}, False),
        ({"dataset": COLUMN}, False),
        ({"encoder": fake_identity(weights_sha256="c" * 64)}, False),
        ({"encoder": fake_identity(dtype="bfloat16")}, False),
        ({"encoder": fake_identity(type="clip")}, False),
        ({"encoder": fake_identity(reads=("top", "front"))}, False),
        ({"encoder": fake_identity(settings={"pooling": "mean"})}, False),
        ({"cameras": ("top",)}, False),
        ({"sensors": (LIDAR,)}, False),
        ({"augmentation": Augmentation(seed=5)}, True),
        ({"augmentation": Augmentation(variants=1)}, False),
    ],
)
def test_the_fingerprint_covers_what_changes_values_and_nothing_else(change: dict, same: bool) -> None:  # type: ignore[type-arg]
    assert (fake_spec(**change).fingerprint == SPEC.fingerprint) is same


def test_a_shard_never_outgrows_256_mib() -> None:
    spec = fake_spec(lengths=(5000,), tokens=256, dim=768, shard_frames=4096)
    assert spec.frames_per_shard * 3 * 256 * 768 * 2 <= 256 << 20


def test_a_folder_with_one_cache_stands_for_it(tmp_path: Path) -> None:
    write_cache(tmp_path / "demo-abc")
    assert FeatureCache(tmp_path).folder == tmp_path / "demo-abc"


@pytest.mark.parametrize(
    ("caches", "message", "remedy"),
    [
        ((), "no feature cache in", "make"),
        (("one", "two"), r"holds 2 caches \(one, two\)", "choose"),
    ],
)
def test_a_folder_without_exactly_one_cache_is_refused(
    tmp_path: Path, caches: tuple[str, ...], message: str, remedy: str
) -> None:
    for name in caches:
        write_cache(tmp_path / name)
    with pytest.raises(CacheError, match=message) as caught:
        FeatureCache(tmp_path)
    assert caught.value.remedy == remedy


def test_an_unfinished_cache_is_called_that(tmp_path: Path) -> None:
    CacheWriter(tmp_path, fake_spec()).write(0, fake_frames(fake_spec(), 0))
    with pytest.raises(CacheError, match="is not finished") as caught:
        FeatureCache(tmp_path)
    assert (caught.value.remedy, caught.value.folder) == ("finish", tmp_path)


def test_a_missing_cache_is_called_that(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no feature cache at .*nowhere") as caught:
        FeatureCache(tmp_path / "nowhere")
    assert caught.value.remedy == "make"


def test_the_arrays_of_a_shard_know_their_frames_places(tmp_path: Path) -> None:
    arrays = CacheWriter(tmp_path, fake_spec()).allocate(1)
    assert arrays["episode_index"].tolist() == [0] * 4 + [1] * 4  # counted within the part
    assert arrays["frame_index"].tolist() == [8, 9, 10, 11, 0, 1, 2, 3]


def test_a_future_format_version_is_named(tmp_path: Path) -> None:
    write_cache(tmp_path)
    header = json.loads((tmp_path / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(json.dumps({**header, "format_version": 9}))
    with pytest.raises(CacheError, match="has format version 9, this vla reads 3, 2 and 1"):
        FeatureCache(tmp_path)


def test_a_path_that_leaves_the_cache_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path)
    header = json.loads((tmp_path / "cache.json").read_text())
    for table, key in (("episodes", "file"), ("parts", "id")):
        there = [{**header[table][0], key: "../../x"}] if table == "parts" else {**header[table], key: "../x"}
        (tmp_path / "cache.json").write_text(json.dumps({**header, table: there}))
        with pytest.raises(CacheError, match=rf"{table}.*{key}"):
            FeatureCache(tmp_path)


def test_a_variant_is_read_by_its_number(tmp_path: Path) -> None:
    spec = fake_spec(augmentation=Augmentation(variants=2))
    cache = write_cache(tmp_path, spec)
    stored = np.concatenate([fake_frames(spec, shard)["top"] for shard in range(3)])
    assert (cache.variants, stored.shape) == (3, (21, 3, 1, 8))
    frames, variants = torch.tensor([20, 3, 3]), torch.tensor([0, 2, 1])
    assert np.array_equal(cache.rows("top", frames, variants), stored[frames, variants])
    assert np.array_equal(cache.all("top"), stored)


def test_cache_json_has_one_size_for_few_episodes_and_many(tmp_path: Path) -> None:
    few = write_cache(tmp_path / "few", fake_spec(lengths=(2,) * 3))
    many = write_cache(tmp_path / "many", fake_spec(lengths=(2,) * 300, shard_frames=200))
    sizes = [(cache.folder / "cache.json").stat().st_size for cache in (few, many)]
    assert abs(sizes[1] - sizes[0]) < 0.05 * sizes[0]
    table = sum(path.stat().st_size for path in many.folder.glob("episodes-*.parquet"))
    assert table < 300 * 100 + 4000


def test_rows_come_in_the_order_that_was_asked_for_from_any_shard(tmp_path: Path) -> None:
    cache = write_cache(tmp_path, fake_spec(lengths=(7, 6), shard_frames=2))
    frames = torch.tensor([12, 0, 5, 5, 11, 3])
    for name in cache.streams:
        expected = cache.all(name)[frames]
        found = cache.rows(name, frames)
        assert torch.equal(found, expected if cache.streams[name].made_by is None else expected[:, 0])
    assert cache.rows("state", frames[:0]).shape == (0, 16)
