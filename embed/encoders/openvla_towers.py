"""The two vision towers of an OpenVLA, which timm trained, in transformers' classes.

    timm                                 transformers
    patch_embed.proj                     embeddings.patch_embeddings.projection
    pos_embed [1, patches, dim]          DINOv2: behind a 0 for the class token, which holds its own already
    blocks.N.attn.qkv [3 dim, dim]       three matrices
    blocks.N.ls1.scale_factor            layer_scale1.lambda1; timm says `gamma`, OpenVLA renames it

Why not timm itself: docs/decisions/0039. The last block, the norm after it and SigLIP's pooling head are
neither read nor built: OpenVLA takes the patches of the block before the last one.

SigLIP's GELU here is the exact one, as timm 0.9 computes it, not the approximation of Google's checkpoints.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vla.base.errors import ConfigError, EncoderError
from vla.base.openvla import DINO, SIGLIP, OpenVLAFiles

HEADS = {
    "vit_large_patch14_reg4_dinov2.lvd142m": 16,
    "vit_so400m_patch14_siglip_224": 16,
    "vit_so400m_patch14_siglip_384": 16,
}
"""Attention heads of timm's models: what no tensor says."""
PARTS_OF_DINO = {
    "norm1": "norm1",
    "attn.proj": "attention.output.dense",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
PARTS_OF_SIGLIP = {
    "norm1": "layer_norm1",
    "attn.proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def load_dino(files: OpenVLAFiles) -> nn.Module:
    """Build DINOv2 with registers, in float32; `last_hidden_state` is that of the block before the last one.

    Raises:
        EncoderError: a tensor is missing, or of another shape.
    """
    from transformers import Dinov2WithRegistersModel

    tower = _read(files, DINO)
    config, named = as_dino(tower, _heads(files, 0), files.settings.image_sizes[0])
    model = _build(Dinov2WithRegistersModel, config, named, files)
    model.layernorm = nn.Identity()
    return model


def as_dino(tower: dict[str, Tensor], heads: int, image_size: int) -> tuple[Any, dict[str, Tensor]]:
    """Return transformers' configuration and tensors of a DINOv2 of timm's, without its last block.

    Args:
        tower: its tensors by timm's names.
        heads: attention heads.
        image_size: edge of an image [pixel].
    """
    from transformers import Dinov2WithRegistersConfig

    patch, width = tower["patch_embed.proj.weight"], tower["cls_token"].shape[-1]
    config = Dinov2WithRegistersConfig(
        hidden_size=width,
        mlp_ratio=tower["blocks.0.mlp.fc1.weight"].shape[0] // width,
        num_hidden_layers=_depth(tower),
        num_attention_heads=heads,
        num_register_tokens=tower["reg_token"].shape[1],
        image_size=image_size,
        patch_size=patch.shape[-1],
    )
    nothing = patch.new_zeros(1, 1, width)
    named = {
        "embeddings.cls_token": tower["cls_token"],
        "embeddings.mask_token": nothing[0],
        "embeddings.register_tokens": tower["reg_token"],
        "embeddings.position_embeddings": torch.cat([nothing, tower["pos_embed"]], dim=1),
        "embeddings.patch_embeddings.projection.weight": patch,
        "embeddings.patch_embeddings.projection.bias": tower["patch_embed.proj.bias"],
        "layernorm.weight": nothing[0, 0],
        "layernorm.bias": nothing[0, 0],
    }
    attention = "attention.attention.{}".format
    named |= _blocks(tower, "encoder.layer", PARTS_OF_DINO, attention, ("query", "key", "value"))
    for number in range(_depth(tower)):
        for scale in ("1", "2"):
            gamma = tower[f"blocks.{number}.ls{scale}.scale_factor"]
            named[f"encoder.layer.{number}.layer_scale{scale}.lambda1"] = gamma
    return config, named


def load_siglip(files: OpenVLAFiles) -> nn.Module:
    """Build SigLIP, in float32; `last_hidden_state` is that of the block before the last one.

    Raises:
        EncoderError: a tensor is missing, or of another shape.
    """
    from transformers import SiglipVisionModel

    tower = _read(files, SIGLIP)
    config, named = as_siglip(tower, _heads(files, 1), files.settings.image_sizes[1])
    model = _build(SiglipVisionModel, config, named, files)
    getattr(model, "vision_model", model).post_layernorm = nn.Identity()
    return model


def as_siglip(tower: dict[str, Tensor], heads: int, image_size: int) -> tuple[Any, dict[str, Tensor]]:
    """Return what `as_dino` returns, of a SigLIP."""
    from transformers import SiglipVisionConfig

    patch = tower["patch_embed.proj.weight"]
    config = SiglipVisionConfig(
        hidden_size=patch.shape[0],
        intermediate_size=tower["blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_depth(tower),
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch.shape[-1],
        hidden_act="gelu",
        vision_use_head=False,
    )
    nothing = patch.new_zeros(patch.shape[0])
    named = {
        "embeddings.patch_embedding.weight": patch,
        "embeddings.patch_embedding.bias": tower["patch_embed.proj.bias"],
        "embeddings.position_embedding.weight": tower["pos_embed"][0],
        "post_layernorm.weight": nothing,
        "post_layernorm.bias": nothing,
    }
    attention = "self_attn.{}_proj".format
    named |= _blocks(tower, "encoder.layers", PARTS_OF_SIGLIP, attention, ("q", "k", "v"))
    # As it is published; transformers 5 itself leaves the beginning out.
    return config, {f"vision_model.{name}": tensor for name, tensor in named.items()}


class _Tower(dict[str, Tensor]):
    """Tensors by timm's names; one that is missing is named."""

    def __init__(self, name: str, prefix: str, tensors: dict[str, Tensor]) -> None:
        super().__init__(tensors)
        self._name, self._prefix = name, prefix

    def __missing__(self, key: str) -> Tensor:
        raise EncoderError(
            f"{self._name} lacks tensor '{self._prefix}{key}' of an OpenVLA; download it again"
        )


def _read(files: OpenVLAFiles, prefix: str) -> _Tower:
    try:
        names = [name for name in files.vision() if name.startswith(prefix)]
        tensors = files.read(names, torch.float32)
    except ConfigError as error:
        raise EncoderError(str(error)) from None
    return _Tower(files.name, prefix, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()})


def _depth(tower: dict[str, Tensor]) -> int:
    return 1 + max((int(name.split(".")[1]) for name in tower if name.startswith("blocks.")), default=0)


def _heads(files: OpenVLAFiles, number: int) -> int:
    model = files.settings.timm_model_ids[number]
    if model not in HEADS:
        raise EncoderError(f"{files.name} has vision tower {model}; vla knows {', '.join(HEADS)}")
    return HEADS[model]


def _blocks(
    tower: dict[str, Tensor],
    layers: str,
    parts: dict[str, str],
    attention: Callable[[str], str],
    names: tuple[str, str, str],
) -> dict[str, Tensor]:
    """Return what all blocks have, by transformers' names."""
    named: dict[str, Tensor] = {}
    for number in range(_depth(tower)):
        for kind in ("weight", "bias"):
            for part, called in parts.items():
                named[f"{layers}.{number}.{called}.{kind}"] = tower[f"blocks.{number}.{part}.{kind}"]
            joint = tower[f"blocks.{number}.attn.qkv.{kind}"].chunk(3)
            for name, tensor in zip(names, joint, strict=True):
                named[f"{layers}.{number}.{attention(name)}.{kind}"] = tensor.contiguous()
    return named


def _build(model: Any, config: Any, tensors: dict[str, Tensor], files: OpenVLAFiles) -> Any:
    """Build a model around tensors by published names; transformers translates those that it has changed."""
    import transformers

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    made, report = model.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    if odd := sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in report[kind]):
        raise EncoderError(
            f"{files.name} does not fit its config.json: {odd[0]} of {model.__name__} is another"
        )
    return made
