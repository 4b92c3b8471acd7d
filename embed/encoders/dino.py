"""DINOv2 (arXiv 2304.07193), also with registers (2309.16588), and DINOv3 ViT (2508.10104)."""

from typing import ClassVar, Literal

from vla.embed.encoders.vision_tower import TowerKind, VisionTower, VisionTowerConfig

KIND = TowerKind(
    name="DINO",
    example="facebook/dinov2-base",
    classes={
        "dinov2": "Dinov2Model",
        "dinov2_with_registers": "Dinov2WithRegistersModel",
        "dinov3_vit": "DINOv3ViTModel",
    },
    processors=("BitImageProcessor", "DINOv3ViTImageProcessor"),
    any_size=True,
    architecture=dict.fromkeys(
        (
            "model_type",
            "hidden_size",
            "intermediate_size",
            "mlp_ratio",
            "num_hidden_layers",
            "num_attention_heads",
            "num_channels",
            "num_register_tokens",
            "image_size",
            "patch_size",
            "hidden_act",
            "layer_norm_eps",
            "rope_theta",
            "use_swiglu_ffn",
            "use_gated_mlp",
        )
    ),
    unused=("embeddings.mask_token",),
    published_names={
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
    },
)


class DinoConfig(VisionTowerConfig):
    """A DINOv2 or DINOv3 vision transformer."""

    model_types: ClassVar[tuple[str, ...]] = tuple(KIND.classes)
    hub_names: ClassVar[tuple[str, ...]] = ("facebook/dinov2-", "facebook/dinov3-vit")
    kind: ClassVar[TowerKind] = KIND
    encoder: ClassVar[type[VisionTower]] = VisionTower
    """Pooled is `pooler_output`, the class token after the last layer norm; patch tokens come after it and
    the registers, through the same norm."""

    type: Literal["dino"] = "dino"
    id: str = "facebook/dinov2-base"
    """Hub id or local directory."""
