"""Frames that shards keep as JPEG files: what is written, what is read back, and what is refused."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_datasets import fake_images, write_dataset
from fake_faults import digests
from fake_growth import demos
from fakes import reseal, shard_file
from PIL import Image
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from vla.base.errors import CacheError
from vla.base.horizons import Horizons
from vla.cache import Augmentation, CacheConfig, FeatureCache, Stream
from vla.cache.cache_damage import cache_problems
from vla.cache.compact import compact
from vla.cache.jpeg import compress
from vla.embed import DatasetConfig, EmbedReport, PixelsConfig, embed
from vla.embed.reencode import reencode_problems
from vla.policy.windows import Windows

QUALITY = 90


def embedded(
    dataset: Path, out: Path, quality: int | None = QUALITY, variants: int = 1, size: int = 32
) -> EmbedReport:
    return embed(
        DatasetConfig(path=str(dataset)),
        PixelsConfig(image_size=(size, size), jpeg_quality=quality, device="cpu"),
        CacheConfig(path=str(out), shard_frames=4),
        Augmentation(variants=variants),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a dataset, a cache of its frames as JPEG files and one of them as they are."""
    root = tmp_path_factory.mktemp("jpeg")
    dataset = write_dataset(root / "demos", (5, 4), (64, 64), 3, cameras={"top": "image", "front": "image"})
    embedded(dataset, root / "jpeg")
    embedded(dataset, root / "plain", quality=None)
    return root


def test_what_is_read_back_is_what_pillow_decodes_of_what_pillow_encoded(folder: Path) -> None:
    jpeg, plain = FeatureCache(folder / "jpeg"), FeatureCache(folder / "plain")
    for camera in ("top", "front"):
        frames = plain.all(camera).numpy()
        due = frames.copy()
        for place in np.ndindex(frames.shape[:2]):
            file = io.BytesIO()
            Image.fromarray(frames[place]).save(file, "JPEG", quality=QUALITY, subsampling=0)
            due[place] = np.asarray(Image.open(file))
        assert np.array_equal(jpeg.all(camera).numpy(), due)
        assert 0 < np.abs(due.astype(int) - frames).mean() < 2
    assert torch.equal(jpeg.all("action"), plain.all("action"))


def test_rows_come_in_any_order_and_with_any_variant(folder: Path) -> None:
    cache = FeatureCache(folder / "jpeg")
    whole = cache.all("top")
    frames, variants = torch.tensor([8, 0, 5, 5, 3]), torch.tensor([1, 0, 1, 0, 1])
    assert torch.equal(cache.rows("top", frames, variants), whole[frames, variants])
    assert torch.equal(cache.rows("top", frames), whole[frames, 0])
    assert torch.equal(cache.frame(6)["top"], whole[6])


@pytest.mark.parametrize("resident", [True, False])
def test_training_windows_are_the_same_in_memory_and_from_the_files(folder: Path, resident: bool) -> None:
    cache, horizons = (
        FeatureCache(folder / "jpeg"),
        Horizons(obs_horizon=2, pred_horizon=3, num_action_steps=1),
    )
    streams = [cache.streams["front"]]
    windows = Windows(cache, horizons, streams, device=torch.device("cpu"), resident=resident)
    seen = windows.batch(torch.tensor([0, 3, 7])).observation["front"]
    assert torch.equal(seen, cache.all("front")[torch.tensor([[0, 0], [2, 3], [6, 7]]), 0])


def test_statistics_are_those_of_what_is_read_back(folder: Path) -> None:
    cache = FeatureCache(folder / "jpeg")
    found, values = cache.metadata.statistics["top"], cache.all("top").numpy().reshape(-1, 3)
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-12)
    assert found.max == tuple(values.max(0).tolist())
    assert cache_problems(cache.folder) == []


def test_encoding_again_gives_the_same_images(folder: Path) -> None:
    cache = FeatureCache(folder / "jpeg")
    config = PixelsConfig(image_size=(32, 32), jpeg_quality=QUALITY, device="cpu")
    assert reencode_problems(cache, DatasetConfig(path=str(folder / "demos")), config, count=9) == ([], 0.0)


def test_quality_names_the_cache_and_plain_ones_are_called_as_before(folder: Path, tmp_path: Path) -> None:
    jpeg, plain = FeatureCache(folder / "jpeg"), FeatureCache(folder / "plain")
    assert jpeg.metadata.recipe != plain.metadata.recipe
    better = FeatureCache(embedded(folder / "demos", tmp_path, quality=95).cache)
    assert better.metadata.recipe != jpeg.metadata.recipe
    assert "jpeg_quality" not in (plain.folder / "cache.json").read_text()


def test_files_take_a_fraction_of_the_frames(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "demos", (6,), (128, 128), 3, cameras={"top": "image"})
    plain = embedded(dataset, tmp_path / "plain", quality=None, size=128)
    jpeg = embedded(dataset, tmp_path / "jpeg", quality=95, size=128)
    assert sum(path.stat().st_size for path in FeatureCache(jpeg.cache).files()) < 0.3 * sum(
        path.stat().st_size for path in FeatureCache(plain.cache).files()
    )
    assert jpeg.mib_encoded < 0.3 * plain.mib_encoded


def test_compacting_copies_files_and_encodes_none_again(tmp_path: Path) -> None:
    for episodes in ([0, 2], [0, 2, 3, 5]):
        grown = Path(embedded(demos(tmp_path / "demos", episodes), tmp_path / "grown").cache)
    once = Path(embedded(tmp_path / "demos", tmp_path / "once").cache)
    compact(grown)
    assert digests(grown) == digests(once)


def exchanged(folder: Path, tmp_path: Path, **tensors: np.ndarray) -> FeatureCache:
    """Return a cache whose first shard has other tensors, with checksums as if it had been written so."""
    cache = Path(embedded(folder / "demos", tmp_path).cache)
    shard = shard_file(cache)
    header = json.dumps({"part": shard.parents[1].name, "first_frame": 0, "frames": 4})
    save_file(load_file(shard) | tensors, shard, metadata={"shard": header})
    reseal(cache)
    return FeatureCache(cache)


def test_lengths_that_do_not_fit_the_bytes_are_refused(folder: Path, tmp_path: Path) -> None:
    ends = np.arange(1, 9, dtype=np.int64).reshape(4, 2)
    with pytest.raises(CacheError, match=r"00000.safetensors has images whose lengths are not those"):
        exchanged(folder, tmp_path, **{"top.ends": ends}).frame(0)


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    shard = load_file(shard_file(FeatureCache(folder / "jpeg").folder))
    files = shard["top"].copy()
    files[: shard["top.ends"][0, 0]] = 0
    with pytest.raises(CacheError, match=r"00000.safetensors has a damaged image, number 0"):
        exchanged(folder, tmp_path, top=files).frame(0)


def test_an_image_of_another_size_is_refused(folder: Path, tmp_path: Path) -> None:
    files, ends = compress(np.stack([fake_images(0, 4, (48, 32))] * 2, axis=1), QUALITY)
    with pytest.raises(CacheError, match="has an image of 48 x 32 x 3, number 0"):
        exchanged(folder, tmp_path, **{"top": files.copy(), "top.ends": ends}).frame(0)


def test_only_images_that_an_encoder_wrote_have_a_quality() -> None:
    with pytest.raises(ValidationError, match="stream 'top' has a jpeg_quality and is no image"):
        Stream(name="top", kind="tokens", dtype="float16", shape=(1, 8), made_by="a", jpeg_quality=90)
