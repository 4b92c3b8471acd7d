"""The feature cache: round trips, resuming, bytes on disk, refusals."""

import hashlib
import json
import shlex
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import CAMERAS, fake_frames, fake_spec, write_cache

from vla.base.errors import CacheError
from vla.cache import Augmentation, CacheWriter, FeatureCache


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_features_survive_a_round_trip(tmp_path: Path) -> None:
    spec = fake_spec()
    cache = write_cache(tmp_path, spec)
    frames = torch.tensor([20, 0, 7, 8, 7])
    stored = np.concatenate([fake_frames(spec, shard).features["top"] for shard in range(3)])
    found = cache.features("top", frames, torch.zeros_like(frames))
    assert np.array_equal(found.numpy(), stored[frames.numpy(), 0])


def test_state_and_action_come_back_in_frame_order(tmp_path: Path) -> None:
    spec = fake_spec()
    cache = write_cache(tmp_path, spec)
    parts = [fake_frames(spec, shard) for shard in range(3)]
    assert np.array_equal(cache.state().numpy(), np.concatenate([part.state for part in parts]))
    assert np.array_equal(cache.action().numpy(), np.concatenate([part.action for part in parts]))


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
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/.00000.safetensors.123.tmp").write_bytes(b"half")
    (tmp_path / ".cache.json.123.tmp").write_bytes(b"half")
    CacheWriter(tmp_path, fake_spec()).remove_leftovers()
    assert [path.name for path in tmp_path.rglob("*")] == ["shards"]


def test_a_shard_of_another_cache_counts_as_missing(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path, fake_spec())
    writer.write(0, fake_frames(fake_spec(), 0))
    other = fake_spec(camera_names=("top", "r_vis", "front"))
    assert CacheWriter(tmp_path, other).missing_shards() == [0, 1, 2]


def test_shards_are_plain_safetensors_with_the_documented_tensors(tmp_path: Path) -> None:
    write_cache(tmp_path)
    raw = (tmp_path / "shards/00000.safetensors").read_bytes()
    (header_size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + header_size])
    assert json.loads(header.pop("__metadata__")["shard"])["first_frame"] == 0
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()} == {
        **{f"features.{camera}": ("F16", [8, 1, 1, 8]) for camera in CAMERAS},
        "state": ("F32", [8, 16]),
        "action": ("F32", [8, 16]),
        "episode_index": ("I32", [8]),
        "frame_index": ("I32", [8]),
    }


def test_statistics_are_those_of_numpy_over_all_frames(tmp_path: Path) -> None:
    spec = fake_spec()
    cache = write_cache(tmp_path, spec)
    parts = [fake_frames(spec, shard) for shard in range(3)]
    action = np.concatenate([part.action for part in parts]).astype(np.float64)
    np.testing.assert_allclose(cache.metadata.action_statistics.mean, action.mean(0), rtol=1e-12)
    np.testing.assert_allclose(cache.metadata.action_statistics.std, action.std(0), rtol=1e-12)
    np.testing.assert_allclose(cache.metadata.action_statistics.q99, np.quantile(action, 0.99, axis=0))
    features = np.concatenate([part.features["front"] for part in parts]).reshape(-1, 8).astype(np.float64)
    np.testing.assert_allclose(cache.metadata.feature_statistics["front"].mean, features.mean(0), rtol=1e-9)
    np.testing.assert_allclose(cache.metadata.feature_statistics["front"].std, features.std(0), rtol=1e-9)


def test_a_feature_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    spec = fake_spec()
    frames = fake_frames(spec, 1)
    frames.features["top"][5, 0, 0, 3] = np.nan
    with pytest.raises(CacheError, match=r"camera 'top' is not finite at episode 1, frame 1"):
        CacheWriter(tmp_path, spec).write(1, frames)
    assert not (tmp_path / "shards/00001.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"shard_frames": 3}, True),
        ({"dataset": fake_spec().dataset.model_copy(update={"path": "elsewhere"})}, True),
        ({"encoder": fake_spec().encoder.model_copy(update={"id": "renamed", "revision": "abc"})}, True),
        ({"dataset": fake_spec().dataset.model_copy(update={"content_sha256": "c" * 64})}, False),
        ({"encoder": fake_spec().encoder.model_copy(update={"weights_sha256": "c" * 64})}, False),
        ({"encoder": fake_spec().encoder.model_copy(update={"dtype": "bfloat16"})}, False),
        ({"preprocessing": fake_spec().preprocessing.model_copy(update={"mean": (0.4, 0.5, 0.5)})}, False),
        ({"camera_names": ("top",)}, False),
        ({"encoder": fake_spec().encoder.model_copy(update={"pooling": "mean"})}, False),
        ({"augmentation": Augmentation(seed=5)}, True),
        ({"augmentation": Augmentation(variants=1)}, False),
    ],
)
def test_the_fingerprint_covers_what_changes_features_and_nothing_else(change: dict, same: bool) -> None:  # type: ignore[type-arg]
    assert (fake_spec(**change).fingerprint == fake_spec().fingerprint) is same


def test_a_shard_never_outgrows_256_mib() -> None:
    patches = fake_spec().encoder.model_copy(update={"tokens": 256, "feature_dim": 768})
    spec = fake_spec(lengths=(5000,), encoder=patches, shard_frames=4096)
    assert spec.frames_per_shard * 3 * 256 * 768 * 2 <= 256 << 20


def test_a_folder_with_one_cache_stands_for_it(tmp_path: Path) -> None:
    write_cache(tmp_path / "demo-abc")
    assert FeatureCache(tmp_path).folder == tmp_path / "demo-abc"


def test_several_caches_in_a_folder_are_listed(tmp_path: Path) -> None:
    write_cache(tmp_path / "one")
    write_cache(tmp_path / "two")
    with pytest.raises(CacheError, match=r"holds 2 caches \(one, two\); name one: --cache .*one"):
        FeatureCache(tmp_path)


def test_an_unfinished_cache_says_how_to_go_on(tmp_path: Path) -> None:
    CacheWriter(tmp_path, fake_spec()).write(0, fake_frames(fake_spec(), 0))
    with pytest.raises(CacheError, match="not finished; run the same `vla embed` again"):
        FeatureCache(tmp_path)


def test_a_missing_cache_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="make one: vla embed --dataset DIR --out"):
        FeatureCache(tmp_path / "nowhere")


def test_a_path_with_a_space_is_quoted_in_commands(tmp_path: Path) -> None:
    folder = tmp_path / "my features"

    def advice() -> list[str]:
        with pytest.raises(CacheError) as caught:
            FeatureCache(folder)
        return shlex.split(str(caught.value))[-2:]

    assert advice() == ["--out", str(folder)]
    folder.mkdir()
    assert advice() == ["--out", str(folder)]
    for name in "ab":
        write_cache(folder / name)
    assert advice() == ["--cache", str(folder / "a")]


def test_a_future_format_version_is_named(tmp_path: Path) -> None:
    write_cache(tmp_path)
    header = json.loads((tmp_path / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(json.dumps({**header, "format_version": 9}))
    with pytest.raises(CacheError, match="has format version 9, this vla reads 1"):
        FeatureCache(tmp_path)


def test_a_path_that_leaves_the_cache_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path)
    header = json.loads((tmp_path / "cache.json").read_text())
    header["shards"][0]["file"] = "../../etc/passwd"
    (tmp_path / "cache.json").write_text(json.dumps(header))
    with pytest.raises(CacheError, match=r"shards\.0\.file"):
        FeatureCache(tmp_path)


def test_a_variant_is_read_by_its_number(tmp_path: Path) -> None:
    spec = fake_spec(augmentation=Augmentation(variants=2))
    cache = write_cache(tmp_path, spec)
    stored = np.concatenate([fake_frames(spec, shard).features["top"] for shard in range(3)])
    assert (cache.variants, stored.shape) == (3, (21, 3, 1, 8))
    frames, variants = torch.tensor([20, 3, 3]), torch.tensor([0, 2, 1])
    assert np.array_equal(cache.features("top", frames, variants), stored[frames, variants])
    assert np.array_equal(cache.all_features("top"), stored)
