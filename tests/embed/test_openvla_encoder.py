"""The fused patches of an OpenVLA: held against a slow forward pass written from timm's definition."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_openvla import DEPTH, PATCH, PATCHES, SIDE, VISION_DIM, random_weights, write_openvla
from torch import Tensor
from torch.nn import functional

from vla.base.errors import EncoderError
from vla.embed import ENCODERS, FrozenEncoder, encoder_config
from vla.embed.transforms import BICUBIC

CAMERAS = ("top", "wrist")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_openvla(tmp_path_factory.mktemp("openvla") / "openvla-tiny")


def load(path: Path, **changes: Any) -> FrozenEncoder:
    return FrozenEncoder.load(ENCODERS.parse({"id": str(path), "device": "cpu", **changes}), CAMERAS)


def slow_tower(weights: dict[str, Tensor], pixels: Tensor, heads: int = 16) -> Tensor:
    """Compute one image's patches after the block before the last, head by head.

    Args:
        weights: of one tower, by timm's names.
        pixels: [3, h, w], normalised.
    """
    w = {name: tensor.double() for name, tensor in weights.items()}
    kernel = w["patch_embed.proj.weight"]
    patches: list[Tensor] = []
    for top in range(0, pixels.shape[1], PATCH):
        for left in range(0, pixels.shape[2], PATCH):
            square = pixels[:, top : top + PATCH, left : left + PATCH].double()
            patches.append((kernel * square).sum(dim=(1, 2, 3)) + w["patch_embed.proj.bias"])
    x = torch.stack(patches) + w["pos_embed"][0]
    if "cls_token" in w:  # neither of these has a position
        x = torch.cat([w["cls_token"][0], w["reg_token"][0], x])
    dim = x.shape[1]
    for block in range(DEPTH - 1):
        b = {name.removeprefix(f"blocks.{block}."): t for name, t in w.items() if f"blocks.{block}." in name}
        one = torch.ones(dim, dtype=torch.float64)
        normed = functional.layer_norm(x, (dim,), b["norm1.weight"], b["norm1.bias"], 1e-6)
        qkv = normed @ b["attn.qkv.weight"].T + b["attn.qkv.bias"]
        query, key, value = (part.unflatten(1, (heads, -1)) for part in qkv.chunk(3, dim=1))
        read = []
        for head in range(heads):
            scores = query[:, head] @ key[:, head].T / (dim // heads) ** 0.5
            read.append(scores.softmax(dim=-1) @ value[:, head])
        attended = torch.cat(read, dim=1) @ b["attn.proj.weight"].T + b["attn.proj.bias"]
        x = x + b.get("ls1.scale_factor", one) * attended
        normed = functional.layer_norm(x, (dim,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        hidden = normed @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + b.get("ls2.scale_factor", one) * (hidden @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"])
    return x[-PATCHES:]


def test_fused_patches_are_those_of_both_towers_side_by_side(checkpoint: Path) -> None:
    encoder = load(checkpoint)
    frames = torch.randint(
        0, 256, (3, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    found = encoder.encoder.encode({"wrist": frames})["wrist"]
    weights, share = random_weights(), frames.double().permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    due = []
    for image in share:
        halves = []
        for tower, pixels in (("featurizer", (image - mean) / std), ("fused_featurizer", 2 * image - 1)):
            prefix = f"vision_backbone.{tower}."
            own = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
            halves.append(slow_tower(own, pixels))
        due.append(torch.cat(halves, dim=1))
    assert found.dtype == torch.float16 and found.shape == (3, PATCHES, VISION_DIM)
    torch.testing.assert_close(found.double(), torch.stack(due), rtol=2e-3, atol=2e-3)


def test_it_is_recognised_and_found_again_by_its_identity(checkpoint: Path) -> None:
    encoder = load(checkpoint)
    assert encoder.identity.type == "openvla" and encoder.eval_image_resize_shape == (SIDE, SIDE)
    assert getattr(encoder.eval_image_resize_shape, "interpolation", None) == BICUBIC
    again = FrozenEncoder.load(encoder_config(encoder.identity, device="cpu"), CAMERAS)
    assert again.identity == encoder.identity and again.writes == encoder.writes
    assert ENCODERS.parse("openvla/openvla-7b-finetuned-libero-spatial").type == "openvla"


def test_only_the_files_and_tensors_that_patches_depend_on_are_read(checkpoint: Path, tmp_path: Path) -> None:
    unused = ("blocks.2.", "featurizer.norm.", "attn_pool.")
    kept = {
        name: tensor
        for name, tensor in random_weights().items()
        if name.startswith("vision_backbone.") and not any(part in name for part in unused)
    }
    half = write_openvla(
        tmp_path / "half",
        weights={
            **kept,
            "vision_backbone.featurizer.blocks.2.x": torch.ones(1),
            "vision_backbone.fused_featurizer.blocks.2.x": torch.ones(1),
        },
    )
    (half / "model-00002-of-00002.safetensors").unlink()
    assert load(half).identity.weights_sha256 == load(checkpoint).identity.weights_sha256


def test_other_weights_are_another_encoder(checkpoint: Path, tmp_path: Path) -> None:
    other = load(write_openvla(tmp_path / "other", seed=1))
    assert other.identity.digest != load(checkpoint).identity.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"timm_model_ids": ["vit_huge", "vit_so400m_patch14_siglip_224"]},
            "vision tower vit_huge; vla knows vit_l",
        ),
        ({"use_fused_vision_backbone": False}, "use_fused_vision_backbone"),
        ({"image_resize_strategy": "letterbox"}, "'image_resize_strategy' = 'letterbox' is not valid"),
        ({"image_sizes": [28, 42]}, "must be one size"),
        ({"model_type": "prismatic"}, "says that it is prismatic, not openvla"),
    ],
)
def test_what_was_trained_otherwise_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write_openvla(tmp_path / "odd", **changes)
    with pytest.raises(EncoderError, match=message):
        load(folder, type="openvla")


def test_what_is_missing_or_misshapen_is_named(tmp_path: Path) -> None:
    weights = random_weights()
    del weights["vision_backbone.featurizer.blocks.1.attn.qkv.bias"]
    with pytest.raises(
        EncoderError, match=r"lacks tensor 'vision_backbone\.featurizer\.blocks\.1\.attn\.qkv\.bias'"
    ):
        load(write_openvla(tmp_path / "gap", weights=weights))
    weights = random_weights()
    weights["vision_backbone.fused_featurizer.pos_embed"] = torch.zeros(1, 9, 48)
    with pytest.raises(EncoderError, match=r"does not fit its config\.json: .*position_embedding"):
        load(write_openvla(tmp_path / "wide", weights=weights))
    whole = write_openvla(tmp_path / "whole")
    (whole / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"has no model-00001-of-00002\.safetensors; download it again"):
        load(whole)
    index = whole / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(EncoderError, match=r"has no tensor 'vision_backbone\.featurizer\.\*'"):
        load(whole)
    with pytest.raises(
        EncoderError, match="no directory 'nowhere'; name one, or an id on the Hub such as openvla"
    ):
        load(Path("nowhere"), type="openvla")
