"""An encoder at work: how frames are cut into passes, and where results go."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from fakes import fake_images
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vla.cache import CacheConfig, EncoderIdentity, FeatureCache, Stream
from vla.embed import ENCODERS, DatasetConfig, Encoder, EncoderConfig, FrozenEncoder, PixelsConfig, embed
from vla.embed.encoders.pixels import PixelsEncoder

CPU = torch.device("cpu")


class ColourConfig(EncoderConfig):
    """A joint encoder in one place: how the cameras' mean colours differ."""

    type: Literal["colour"] = "colour"
    id: str = "colour"

    def build(self, cameras: tuple[str, ...], device: torch.device) -> "ColourEncoder":
        return ColourEncoder(cameras)


class ColourEncoder(Encoder):
    """Reads all cameras, writes one stream."""

    def __init__(self, cameras: tuple[str, ...]) -> None:
        identity = EncoderIdentity(
            type="colour", id="colour", weights_sha256=None, dtype="float32", reads=cameras
        )
        shape = (len(cameras), 3)
        scene = Stream(name="scene", kind="tokens", dtype="float32", shape=shape, made_by=identity.digest)
        super().__init__(identity, cameras, (scene,), image_size=(8, 8))

    def encode(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        views = torch.stack([observation[camera].float() for camera in self.reads], dim=1)
        colours = views.mean(dim=(2, 3))
        return {"scene": colours - colours.mean(dim=1, keepdim=True)}


def pixels(batch_size: int, cameras: tuple[str, ...] = ("a", "b", "c")) -> FrozenEncoder:
    return FrozenEncoder(PixelsEncoder(cameras, (4, 4)), device=CPU, batch_size=batch_size)


@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4), size=st.integers(1, 50))
def test_passes_are_the_frames_of_all_cameras_in_order_cut_to_size(lengths: list[int], size: int) -> None:
    cameras = tuple("abcd"[: len(lengths)])
    rows = {camera: range(n) for camera, n in zip(cameras, lengths, strict=True)}
    passes = list(pixels(size, cameras).passes(rows))
    found = [(camera, row) for part in passes for camera, here in part.items() for row in here]
    assert found == [(camera, row) for camera, here in rows.items() for row in here]
    assert all(sum(map(len, part.values())) == size for part in passes[:-1])
    assert all(len(here) for part in passes for here in part.values())


def test_results_are_written_to_the_rows_that_they_are_of() -> None:
    encoder = pixels(batch_size=5)
    views = {camera: fake_images(seed, 7, (4, 4)) for seed, camera in enumerate("abc")}
    out = {camera: np.zeros((7, 4, 4, 3), np.uint8) for camera in "abc"}
    for rows in encoder.passes(dict.fromkeys("abc", range(7))):
        encoder.encode_into(views, rows, out)
    assert all(np.array_equal(out[camera], views[camera]) for camera in "abc")


def test_a_camera_that_fills_its_passes_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, seen = pixels(batch_size=8), []
    views = {camera: fake_images(seed, 16, (4, 4)) for seed, camera in enumerate("abc")}

    def encode_view(frames: Tensor) -> Tensor:
        seen.append(frames)
        return frames

    monkeypatch.setattr(encoder.encoder, "encode_view", encode_view)
    encoder.encode(views)
    assert len(seen) == 6
    assert all(any(np.shares_memory(t.numpy(), frames) for frames in views.values()) for t in seen)


def test_flipped_views_are_encoded_as_they_look() -> None:
    frames = fake_images(0, 2, (4, 4))
    found = pixels(8, ("a",)).encode({"a": frames[:, ::-1]})["a"]
    assert np.array_equal(found.numpy(), frames[:, ::-1])


def test_cameras_may_differ_in_size_and_are_resized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []

    def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        sizes.append(frames.shape[1:3])
        return np.zeros((len(frames), *size, 3), np.uint8)

    monkeypatch.setattr("vla.embed.frozen_encoder.resize", resize)
    views = {"a": fake_images(0, 2, (6, 8)), "b": fake_images(1, 2, (4, 4)), "c": fake_images(2, 2, (12, 4))}
    assert {name: tuple(t.shape) for name, t in pixels(8).encode(views).items()} == dict.fromkeys(
        "abc", (2, 4, 4, 3)
    )
    assert sizes == [(6, 8), (4, 4), (12, 4)]


def test_a_joint_encoder_sees_all_cameras_of_an_instant_in_every_pass() -> None:
    encoder = FrozenEncoder(ColourEncoder(("a", "b")), device=CPU, batch_size=6)
    rows = {"a": range(8), "b": range(8)}
    assert list(encoder.passes(rows)) == [
        {"a": range(start, stop), "b": range(start, stop)} for start, stop in ((0, 3), (3, 6), (6, 8))
    ]
    views = {"a": fake_images(0, 8, (8, 8)), "b": fake_images(1, 8, (8, 8))}
    scene = encoder.encode(views)["scene"]
    means = np.stack([views[camera].mean((1, 2)) for camera in "ab"], axis=1)
    np.testing.assert_allclose(scene, means - means.mean(1, keepdims=True), atol=1e-3)


def test_a_joint_encoder_is_one_config_and_one_class_and_is_embedded_as_any_other(
    dataset: Path, tmp_path: Path
) -> None:
    config = ENCODERS.parse({"type": "colour", "device": "cpu"})
    assert isinstance(config, ColourConfig)
    report = embed(DatasetConfig(path=str(dataset)), config, CacheConfig(path=str(tmp_path), shard_frames=4))
    cache = FeatureCache(report.cache)
    assert [s.name for s in cache.metadata.streams] == ["scene", "state", "action"]
    assert cache.metadata.encoder is not None and cache.metadata.encoder.reads == report.cameras
    assert cache.all("scene").shape == (9, 1, 3, 3)


def test_pixels_in_a_cache_are_the_datasets_frames(dataset: Path, tmp_path: Path) -> None:
    config = PixelsConfig(device="cpu", image_size=(256, 256))
    report = embed(DatasetConfig(path=str(dataset)), config, CacheConfig(path=str(tmp_path), shard_frames=4))
    cache = FeatureCache(report.cache)
    stored = cache.all("front")
    assert stored.dtype == torch.uint8 and cache.streams["front"].kind == "image"
    assert np.array_equal(stored[:, 0], np.concatenate([fake_images(2, 5), fake_images(102, 4)]))
