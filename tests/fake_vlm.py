"""Small vision-language models in the real architectures: four image tokens a camera, 32 numbers wide."""

import json
from pathlib import Path
from typing import Any

import torch
from fake_language_model import SIZES, write_byte_pairs
from fake_towers import wake
from transformers import (
    Idefics3Config,
    Idefics3Model,
    PaliGemmaConfig,
    PaliGemmaModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen2VLConfig,
    Qwen2VLModel,
    SmolVLMConfig,
    SmolVLMModel,
)

IMAGE = 279
"""The image token, which no text gives."""
TEXT: dict[str, Any] = {**SIZES, "num_hidden_layers": 4, "max_position_embeddings": 512}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SHUFFLED = {
    "vision_config": {**TOWER, "image_size": 64, "patch_size": 16},
    "text_config": {**TEXT, "model_type": "llama"},
    "scale_factor": 2,
    "image_token_id": IMAGE,
}
QWEN_TEXT = {
    **TEXT,
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
}
QWEN: dict[str, Any] = {"text_config": QWEN_TEXT, "image_token_id": IMAGE, "vision_start_token_id": 277}
QWEN_TOWER = {"depth": 2, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2}
WRITERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "smolvlm": (SmolVLMConfig, SmolVLMModel, SHUFFLED),
    "idefics3": (Idefics3Config, Idefics3Model, SHUFFLED),
    "paligemma": (
        PaliGemmaConfig,
        PaliGemmaModel,
        {
            "vision_config": {
                **TOWER,
                "model_type": "siglip_vision_model",
                "image_size": 32,
                "patch_size": 16,
            },
            "text_config": {**TEXT, "model_type": "gemma"},
            "projection_dim": 32,
            "image_token_id": IMAGE,
        },
    ),
    "qwen2_vl": (
        Qwen2VLConfig,
        Qwen2VLModel,
        {**QWEN, "vision_config": {**QWEN_TOWER, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}},
    ),
    "qwen2_5_vl": (
        Qwen2_5_VLConfig,
        Qwen2_5_VLModel,
        {
            **QWEN,
            "vision_config": {
                **QWEN_TOWER,
                "hidden_size": 16,
                "intermediate_size": 32,
                "out_hidden_size": 32,
                "window_size": 16,
                "fullatt_block_indexes": [1],
            },
        },
    ),
}


def write_vlm(folder: Path, kind: str = "smolvlm", seed: int = 0) -> Path:
    """Write a checkpoint of one of `WRITERS`."""
    config, model, values = WRITERS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = model(config(**values))
        wake(made)
    made.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.4] * 3})
    )
    return write_byte_pairs(folder)
