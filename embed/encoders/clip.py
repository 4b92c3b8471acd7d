"""CLIP vision towers (arXiv 2103.00020), of OpenAI and others, with the projection that meets the texts."""

from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from vla.embed.encoders.vision_tower import TowerKind, VisionTower, VisionTowerConfig

TOWER = "CLIPVisionModelWithProjection"
KIND = TowerKind(
    name="CLIP",
    example="openai/clip-vit-large-patch14",
    classes={"clip": TOWER, "clip_vision_model": TOWER},
    processors=("CLIPImageProcessor",),
    architecture=dict.fromkeys(
        (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_channels",
            "image_size",
            "patch_size",
            "hidden_act",
            "layer_norm_eps",
            "projection_dim",
        )
    ),
    of_both_towers=("projection_dim",),
    pooled_only=("post_layernorm", "visual_projection"),
)


class ClipEncoder(VisionTower):
    """A CLIP tower. Pooled is `image_embeds`, the projected feature, 512 numbers of ViT-B and 768 of ViT-L.

    Patch tokens are those of the last layer, 768 and 1024 numbers, as they are before the layer norm that
    only the pooled feature goes through.
    """

    @classmethod
    def pooled_dim(cls, config: Any) -> int:
        return int(config.projection_dim)

    def pooled(self, output: Any) -> Float[Tensor, "n dim"]:
        feature: Tensor = output.image_embeds
        return feature


class ClipConfig(VisionTowerConfig):
    """A CLIP vision tower."""

    model_types: ClassVar[tuple[str, ...]] = tuple(KIND.classes)
    hub_names: ClassVar[tuple[str, ...]] = ("openai/clip-vit-",)
    kind: ClassVar[TowerKind] = KIND
    encoder: ClassVar[type[VisionTower]] = ClipEncoder

    type: Literal["clip"] = "clip"
    id: str = "openai/clip-vit-large-patch14"
    """Hub id or local directory."""
