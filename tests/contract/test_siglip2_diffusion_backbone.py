"""The user's contract of the vision side: sizes, independence of views, projected shape."""

from types import SimpleNamespace

import numpy as np
import torch
from fakes import CAMERAS, fake_identity, fake_images, fake_spec
from torch import Tensor, nn

from vla.embed import FrozenEncoder
from vla.embed.encoders.siglip import SiglipEncoder
from vla.policy.trunks.trunk import trunk_for


class StubVisionModel(nn.Module):
    """Pooled feature = 768 fixed random projections of the mean colour; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_size=256, patch_size=16, hidden_size=768, intermediate_size=3072)
        generator = torch.Generator().manual_seed(0)
        self.directions = nn.Parameter(torch.randn(3, 768, generator=generator))
        self.batches: list[tuple[int, ...]] = []

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        self.batches.append(tuple(pixel_values.shape))
        return SimpleNamespace(pooler_output=pixel_values.mean(dim=(2, 3)) @ self.directions)


def stub_encoder() -> tuple[FrozenEncoder, StubVisionModel]:
    model = StubVisionModel()
    encoder = SiglipEncoder(model, fake_identity(), CAMERAS)
    return FrozenEncoder(encoder, device=torch.device("cpu"), batch_size=64), model


def encoded(images: dict[str, np.ndarray], steps: int) -> dict[str, Tensor]:
    """Features [B, T, 1, 768] of frames [B * T, h, w, 3]."""
    features = stub_encoder()[0].encode(images)
    return {camera: tensor.unflatten(0, (-1, steps)) for camera, tensor in features.items()}


def projected(features: dict[str, Tensor], per_view_dim: int) -> Tensor:
    """Project each view by a trunk of its own and concatenate them, as the agent does."""
    torch.manual_seed(0)
    streams = {stream.name: stream for stream in fake_spec(dim=768).streams}
    trunks = {
        camera: trunk_for(streams[camera], None).build(streams[camera], per_view_dim) for camera in CAMERAS
    }
    return torch.cat([trunks[camera](features[camera]).flatten(-2) for camera in CAMERAS], dim=-1)


def test_raw_dataset_resize_is_none() -> None:
    assert stub_encoder()[0].dataset_image_resize_shape is None


def test_eval_resize_is_256_by_256() -> None:
    assert stub_encoder()[0].eval_image_resize_shape == (256, 256)


def test_larger_renders_reach_the_model_at_256_by_256() -> None:
    encoder, model = stub_encoder()
    encoder.encode({camera: fake_images(0, 2, size=(480, 640)) for camera in CAMERAS})
    assert model.batches == [(6, 3, 256, 256)]


def test_output_shape_is_batch_time_and_three_per_view_dims() -> None:
    images = {camera: fake_images(seed, 8) for seed, camera in enumerate(CAMERAS)}
    for per_view_dim in (96, 192):
        assert projected(encoded(images, steps=2), per_view_dim).shape == (4, 2, 3 * per_view_dim)


def test_three_views_are_encoded_independently_and_projected() -> None:
    images = {camera: fake_images(seed, 2) for seed, camera in enumerate(CAMERAS)}
    before = projected(encoded(images, steps=2), 96)
    after = projected(encoded({**images, "top": 255 - images["top"]}, steps=2), 96)
    changed = (before != after).any(dim=(0)).any(dim=0)
    assert not changed[:96].any() and not changed[192:].any()
    assert changed[96:192].any()


def test_one_shared_model_encodes_all_views_in_one_pass() -> None:
    encoder, model = stub_encoder()
    encoder.encode({camera: fake_images(seed, 2) for seed, camera in enumerate(CAMERAS)})
    assert model.batches == [(6, 3, 256, 256)]


def test_the_vision_model_is_frozen() -> None:
    _, model = stub_encoder()
    assert not model.training and not any(p.requires_grad for p in model.parameters())
