"""The user's contract of the joint encoder: three views in one image, 192 numbers an instant, frozen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_lewm import SMALL, old_names, small_vision, write_lightning
from fakes import CAMERAS, fake_images
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from vla.base.lewm import LewmVision
from vla.embed import ENCODERS, FrozenEncoder
from vla.embed.encoders.lewm import LewmEncoder

LOOKS_AT = {"view_size": (40, 48), "image_size": 32}


def load(path: Path, cameras: tuple[str, ...] = CAMERAS, **changes: Any) -> FrozenEncoder:
    table = {"type": "lewm", "id": str(path), "device": "cpu", **LOOKS_AT, **changes}
    return FrozenEncoder.load(ENCODERS.parse(table), cameras)


def views(count: int = 2, size: tuple[int, int] = (40, 48)) -> dict[str, np.ndarray]:
    return {camera: fake_images(seed, count, size=size) for seed, camera in enumerate(CAMERAS)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lightning(tmp_path_factory.mktemp("lewm") / "epoch=99-step=47800.ckpt", small_vision())


def by_hand(vision: LewmVision, images: dict[str, np.ndarray]) -> Tensor:
    """Compute the feature step by step, as the paper's code does, for views from left to right."""
    wide = np.concatenate([images[camera] for camera in CAMERAS], axis=2)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = torch.from_numpy((wide / 255 - mean) / std).float().permute(0, 3, 1, 2)
    height, width = wide.shape[1:3]
    pixels = functional.interpolate(pixels, (32, 32 * width // height), mode="bilinear", antialias=True)
    vit: Any = vision.encoder
    hidden = vit(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    first, norm, _, last = vision.projector.net
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None and norm.running_var is not None
    hidden = (first(hidden) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    return last(functional.gelu(hidden * norm.weight + norm.bias))


def test_the_encoder_has_the_attributes_of_a_joint_backbone(checkpoint: Path) -> None:
    encoder = load(checkpoint).encoder
    assert isinstance(encoder, LewmEncoder)
    assert (encoder.camera_names, encoder.num_cameras) == (("r_vis", "top", "front"), 3)
    assert encoder.joint_output_dim == 192 and encoder.joint
    assert encoder.identity.reads == CAMERAS


def test_three_views_give_one_vector_of_192_numbers_an_instant(checkpoint: Path) -> None:
    encoded = load(checkpoint).encode(views(6))
    assert {name: (tuple(t.shape), t.dtype) for name, t in encoded.items()} == {
        "lewm": ((6, 1, 192), torch.float16)
    }
    assert encoded["lewm"].unflatten(0, (3, 2)).shape == (3, 2, 1, 192)  # B, T, one token


@torch.no_grad()
def test_the_vector_is_that_of_the_papers_steps(checkpoint: Path) -> None:
    found = load(checkpoint).encode(views())["lewm"][:, 0]
    torch.testing.assert_close(found.float(), by_hand(small_vision(), views()), rtol=1e-3, atol=1e-3)


def test_every_view_matters_and_so_does_their_order(checkpoint: Path) -> None:
    encoder, seen = load(checkpoint), views()
    feature = encoder.encode(seen)["lewm"]
    for camera in CAMERAS:
        other = encoder.encode({**seen, camera: 255 - seen[camera]})["lewm"]
        assert (other - feature).abs().max() > 0.01
    turned = load(checkpoint, CAMERAS[::-1])
    assert (turned.encode(seen)["lewm"] - feature).abs().max() > 0.01
    assert turned.identity.digest != encoder.identity.digest


def test_larger_renders_reach_the_encoder_at_its_view_size(checkpoint: Path) -> None:
    encoder = load(checkpoint)
    assert encoder.dataset_image_resize_shape is None
    assert encoder.eval_image_resize_shape == (40, 48)
    assert encoder.encode(views(size=(120, 160)))["lewm"].shape == (2, 1, 192)


def test_a_checkpoint_that_does_not_say_sees_256_by_256_at_224(checkpoint: Path) -> None:
    settings = load(checkpoint, view_size="auto", image_size="auto").identity.settings
    assert settings == {"layout": "row", "view_size": [256, 256], "image_size": 224}


def test_it_is_frozen_and_stays_in_evaluation_mode(checkpoint: Path) -> None:
    encoder = load(checkpoint).encoder
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.encode({camera: torch.from_numpy(frames) for camera, frames in views().items()})
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())


def test_the_statistics_of_batchnorm_come_from_the_checkpoint(checkpoint: Path) -> None:
    encoder = load(checkpoint).encoder
    assert isinstance(encoder, LewmEncoder)
    found, due = encoder.vision.projector.state_dict(), small_vision().projector.state_dict()
    for name in ("net.1.running_mean", "net.1.running_var"):
        assert torch.equal(found[name], due[name])


def test_every_form_of_a_checkpoint_is_the_same_encoder(checkpoint: Path, tmp_path: Path) -> None:
    vision = small_vision()
    due = load(checkpoint)
    write_lightning(tmp_path / "last.ckpt", vision, old=True)
    torch.save(vision.state_dict(), tmp_path / "weights.pt")
    torch.save(old_names(vision.state_dict()), tmp_path / "old.pt")
    save_file(vision.state_dict(), tmp_path / "lewm.safetensors")
    for name in ("last.ckpt", "weights.pt", "old.pt", "lewm.safetensors", ""):
        found = load(tmp_path / name)
        assert found.identity.digest == due.identity.digest, name
        assert torch.equal(found.encode(views())["lewm"], due.encode(views())["lewm"]), name


def test_sizes_are_those_of_the_tensors(checkpoint: Path) -> None:
    encoder = load(checkpoint).encoder
    assert isinstance(encoder, LewmEncoder)
    assert encoder.vision.sizes == SMALL
