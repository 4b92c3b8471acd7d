"""CLIP, DINOv2 and DINOv3: features are those of plain transformers with the checkpoint's own processor."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from fake_towers import DINOV3_PROCESSOR, KINDS, write_tower
from jaxtyping import Float
from torch import Tensor
from transformers import BitImageProcessor, CLIPImageProcessor
from transformers.utils import is_torchvision_available

from vla.embed import ENCODERS, FrozenEncoder, encoder_config

PREFIX = {"clip": 1, "clip-two-towers": 1, "dinov2": 1, "dinov2-registers": 5, "dinov3": 5}
CLASSES = {
    "clip": "CLIPVisionModelWithProjection",
    "clip-two-towers": "CLIPVisionModelWithProjection",
    "dinov2": "Dinov2Model",
    "dinov2-registers": "Dinov2WithRegistersModel",
    "dinov3": "DINOv3ViTModel",
}


def load(folder: Path, **settings: object) -> FrozenEncoder:
    return FrozenEncoder.load(ENCODERS.parse({"id": str(folder), "device": "cpu", **settings}), ("top",))


def frames(height: int, width: int, count: int = 2) -> np.ndarray:
    """Pictures with coarse and fine structure: any blur or shift shows."""
    rng = np.random.default_rng([height, width])
    coarse = rng.integers(0, 256, (count, -(-height // 16), -(-width // 16), 3))
    whole = np.kron(coarse, np.ones((1, 16, 16, 1)))[:, :height, :width]
    return np.clip(whole + rng.normal(0, 20, whole.shape), 0, 255).astype(np.uint8)


def dinov3_pixels(images: np.ndarray) -> Float[Tensor, "n 3 h w"]:
    """Prepare images in the order of DINOv3's processor, which needs torchvision."""
    values = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    size = tuple(DINOV3_PROCESSOR["size"].values())
    values = torch.nn.functional.interpolate(values, size=size, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(DINOV3_PROCESSOR[f"image_{of}"])[:, None, None] for of in ("mean", "std"))
    return (values - mean) / std


def plain(folder: Path, kind: str, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the pooled features and the patch tokens of plain transformers."""
    if kind != "dinov3":
        processor = (CLIPImageProcessor if "clip" in kind else BitImageProcessor).from_pretrained(folder)
        pixels = processor(images=list(images), return_tensors="pt")["pixel_values"]
    elif is_torchvision_available():
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        pixels = processor(images=list(images), return_tensors="pt")["pixel_values"]
    else:
        pixels = dinov3_pixels(images)
    more = {"projection_dim": 24} if kind == "clip-two-towers" else {}
    model = getattr(transformers, CLASSES[kind]).from_pretrained(folder, **more).eval()
    with torch.no_grad():
        output = model(pixel_values=pixels)
    return output["image_embeds" if "clip" in kind else "pooler_output"], output.last_hidden_state[
        :, PREFIX[kind] :
    ]


def require_the_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert torch.nn.functional.cosine_similarity(found.float(), expected, dim=-1).min() >= 0.9999
    # Images differ: a feature that is the same for all would pass too.
    assert torch.nn.functional.cosine_similarity(expected[0], expected[1], dim=-1).min() < 0.99


@pytest.fixture(scope="module", params=KINDS)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return a kind, and a checkpoint of it; read it, do not change it."""
    return request.param, write_tower(tmp_path_factory.mktemp("tower") / request.param, request.param)


def test_features_are_those_of_plain_transformers(tower: tuple[str, Path]) -> None:
    kind, folder = tower
    pooled, patches = load(folder), load(folder, pool="patches")
    # Wide, high and odd; the processor's shorter edge and its crop, of which a camera's frame may be.
    for size in ((90, 160), (150, 101), (64, 64), (56, 56), (48, 48)):
        images = frames(*size)
        expected = plain(folder, kind, images)
        require_the_same(pooled.encode({"top": images})["top"][:, 0], expected[0])
        require_the_same(patches.encode({"top": images})["top"], expected[1])


def test_a_directory_chooses_its_encoder_and_an_identity_leads_back_to_it(tower: tuple[str, Path]) -> None:
    kind, folder = tower
    config = ENCODERS.parse({"id": str(folder), "device": "cpu", "pool": "grid2"})
    assert config.type == ("clip" if "clip" in kind else "dino")
    first = FrozenEncoder.load(config, ("top",))
    again = FrozenEncoder.load(encoder_config(first.identity, device="cpu"), ("top",))
    assert again.identity == first.identity and again.writes == first.writes


@pytest.mark.parametrize("pooling", ["pooled", "grid2x3", "patches"])
def test_every_tower_has_every_pooling(pooling: str, tower: tuple[str, Path]) -> None:
    kind, folder = tower
    encoder = load(folder, pool=pooling)
    found = encoder.encode({"top": frames(80, 100)})["top"]
    patches = 9 if kind == "dinov3" else 16
    tokens = {"pooled": 1, "grid2x3": 6, "patches": patches}[pooling]
    width = 24 if "clip" in kind and pooling == "pooled" else 32
    assert found.shape[1:] == encoder.writes[0].shape == (tokens, width)


def test_half_precision_keeps_the_direction_of_features(tower: tuple[str, Path]) -> None:
    _, folder = tower
    images = frames(64, 64)
    full, half = (
        load(folder, dtype=dtype).encode({"top": images})["top"] for dtype in ("float32", "bfloat16")
    )
    assert torch.nn.functional.cosine_similarity(full.float(), half.float(), dim=-1).min() > 0.999
