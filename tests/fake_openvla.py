"""A tiny OpenVLA in the files of the published one: config, tokeniser, two shards and their index."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

SIDE, PATCH, PATCHES = 28, 14, 4
"""Edge of an image and of a patch [pixel]; patches of an image."""
DINO_DIM, SIGLIP_DIM, DEPTH, REGISTERS = 32, 48, 3, 4
VISION_DIM = DINO_DIM + SIGLIP_DIM
WORDS = (
    "<unk>",
    "<s>",
    "</s>",
    "▁",
    "In",
    "Out",
    ":",
    "?",
    "What",
    "action",
    "should",
    "the",
    "robot",
    "take",
    *("to", "pick", "up", "red", "box", "hand", "it", "over"),
)
VOCABULARY, PADDED = 300, 64
"""Words of the tokeniser, the last 256 of which are actions; rows of the table past them."""
TEXT: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "pad_token_id": VOCABULARY,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY + PADDED,
}
STATISTICS = {
    "bridge_orig": {"action": {"q01": [-2.0, 0.5, 0.0], "q99": [2.0, 1.5, 1.0], "mask": [True, True, False]}},
    "kitchen": {"action": {"q01": [0.0, 10.0], "q99": [1.0, 20.0]}},
}


def openvla_config(**changes: Any) -> dict[str, Any]:
    """Return a config.json as the Hub has it, at reduced size."""
    return {
        "architectures": ["OpenVLAForActionPrediction"],
        "arch_specifier": "no-align+fused-gelu-mlp",
        "auto_map": {"AutoConfig": "configuration_prismatic.OpenVLAConfig"},
        "hf_llm_id": "meta-llama/Llama-2-7b-hf",
        "image_resize_strategy": "resize-naive",
        "image_sizes": [SIDE, SIDE],
        "model_type": "openvla",
        "n_action_bins": 256,
        "norm_stats": STATISTICS,
        "pad_to_multiple_of": PADDED,
        "pad_token_id": VOCABULARY,
        "text_config": TEXT,
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
        "timm_override_act_layers": [None, None],
        "torch_dtype": "bfloat16",
        "use_fused_vision_backbone": True,
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        **changes,
    }


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor."""
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, rows: int, columns: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = (rows, columns)
        if bias:
            found[f"{name}.bias"] = (rows,)

    def norm(name: str, dim: int) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (dim,)

    towers = (("featurizer", DINO_DIM, 4 * DINO_DIM), ("fused_featurizer", SIGLIP_DIM, 56))
    for tower, dim, hidden in towers:
        root = f"vision_backbone.{tower}"
        found[f"{root}.pos_embed"] = (1, PATCHES, dim)
        found[f"{root}.patch_embed.proj.weight"] = (dim, 3, PATCH, PATCH)
        found[f"{root}.patch_embed.proj.bias"] = (dim,)
        for block in range(DEPTH):
            at = f"{root}.blocks.{block}"
            norm(f"{at}.norm1", dim)
            linear(f"{at}.attn.qkv", 3 * dim, dim)
            linear(f"{at}.attn.proj", dim, dim)
            norm(f"{at}.norm2", dim)
            linear(f"{at}.mlp.fc1", hidden, dim)
            linear(f"{at}.mlp.fc2", dim, hidden)
            if tower == "featurizer":
                found[f"{at}.ls1.scale_factor"] = found[f"{at}.ls2.scale_factor"] = (dim,)
        norm(f"{root}.norm", dim)
    found["vision_backbone.featurizer.cls_token"] = (1, 1, DINO_DIM)
    found["vision_backbone.featurizer.reg_token"] = (1, REGISTERS, DINO_DIM)
    pool = "vision_backbone.fused_featurizer.attn_pool"
    found[f"{pool}.latent"] = (1, 1, SIGLIP_DIM)
    linear(f"{pool}.q", SIGLIP_DIM, SIGLIP_DIM)
    width = TEXT["hidden_size"]
    linear("projector.fc1", 4 * VISION_DIM, VISION_DIM)
    linear("projector.fc2", width, 4 * VISION_DIM)
    linear("projector.fc3", width, width)
    for layer in range(TEXT["num_hidden_layers"]):
        at = f"language_model.model.layers.{layer}"
        for name, rows in (("q", width), ("k", width // 2), ("v", width // 2), ("o", width)):
            linear(f"{at}.self_attn.{name}_proj", rows, width, bias=False)
        for name, rows, columns in (("gate", 48, width), ("up", 48, width), ("down", width, 48)):
            linear(f"{at}.mlp.{name}_proj", rows, columns, bias=False)
        found[f"{at}.input_layernorm.weight"] = found[f"{at}.post_attention_layernorm.weight"] = (width,)
    found["language_model.model.embed_tokens.weight"] = (VOCABULARY + PADDED, width)
    found["language_model.model.norm.weight"] = (width,)
    found["language_model.lm_head.weight"] = (VOCABULARY + PADDED, width)
    return found


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Return tensors of a spread at which every part of the network shows in what comes out."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes().items():
        tensor = torch.randn(shape, generator=generator)
        scale = 0.5 if len(shape) == 1 else shape[-1] ** -0.5
        scale *= 3 if "lm_head" in name else 1  # so that a token can be as good as certain
        made[name] = (tensor * scale + ("norm" in name and name.endswith("weight"))).to(torch.bfloat16)
    return made


def write_tokenizer(folder: Path) -> None:
    """Write a tokeniser of a few words; the rest of its vocabulary are names without a meaning."""
    words = [*WORDS, *(f"<{number}>" for number in range(VOCABULARY - len(WORDS)))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def write_openvla(
    folder: Path, seed: int = 0, weights: dict[str, Tensor] | None = None, **changes: Any
) -> Path:
    """Write a checkpoint.

    Args:
        folder: must not be there yet.
        seed: of its weights.
        weights: in place of random ones.
        changes: to its config.json.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(openvla_config(**changes)))
    (folder / "modeling_prismatic.py").write_text("raise RuntimeError('remote code was run')")
    write_tokenizer(folder)
    weights = weights or random_weights(seed)
    towers = {name for name in weights if name.startswith("vision_backbone.")}
    shards = {
        "model-00001-of-00002.safetensors": towers,
        "model-00002-of-00002.safetensors": weights.keys() - towers,
    }
    files: dict[str, str] = {}
    for file, names in shards.items():
        save_file({name: weights[name] for name in sorted(names)}, folder / file, {"format": "pt"})
        files |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 0}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
