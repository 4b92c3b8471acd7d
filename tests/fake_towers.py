"""Small checkpoints of every kind of vision tower, in the real architectures."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP = {**SMALL, "intermediate_size": 64, "image_size": 64, "patch_size": 16, "projection_dim": 24}
DINOV2 = {**SMALL, "image_size": 70, "patch_size": 14}  # 5 x 5 positions, interpolated to 4 x 4
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
DINOV3_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "DINOv3ViTImageProcessorFast",
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_center_crop": None,
    "resample": 2,
    "size": {"height": 48, "width": 48},
    **IMAGENET,
}
"""As the published checkpoints have it; transformers can only write it where torchvision is."""
KINDS = ("clip", "clip-two-towers", "dinov2", "dinov2-registers", "dinov3")


def write_tower(root: Path, kind: str, seed: int = 0) -> Path:
    """Write a checkpoint of one of `KINDS`, with the processor file that its published ones have."""
    torch.manual_seed(seed)
    if kind == "clip":
        model: Any = CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP))
    elif kind == "clip-two-towers":
        # As in some published files, only the whole says how wide the projection is.
        text = {**SMALL, "intermediate_size": 32, "vocab_size": 64}
        vision = {**CLIP, "projection_dim": 512}
        model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=24))
    elif kind == "dinov2":
        model = Dinov2Model(Dinov2Config(**DINOV2))
    elif kind == "dinov2-registers":
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**DINOV2, num_register_tokens=4))
    else:
        sizes = {**SMALL, "intermediate_size": 64, "image_size": 48, "patch_size": 16}
        model = DINOv3ViTModel(DINOv3ViTConfig(**sizes, num_register_tokens=4))
    wake(model)
    model.save_pretrained(root)
    if kind.startswith("clip"):
        CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(
            root
        )
    elif kind.startswith("dinov2"):
        crop = {"height": 56, "width": 56}
        BitImageProcessor(size={"shortest_edge": 64}, crop_size=crop, **IMAGENET).save_pretrained(root)
    else:
        (root / "preprocessor_config.json").write_text(json.dumps(DINOV3_PROCESSOR))
    return root


def wake(model: torch.nn.Module) -> None:
    """Draw larger weights: of freshly initialised ones, features hardly depend on the image."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3 if "embed" in name else 0.15)
