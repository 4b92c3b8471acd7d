"""SigLIP and SigLIP2 vision towers: the default encoder, one feature vector a view, or several."""

from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from vla.base.errors import EncoderError
from vla.cache.metadata import EncoderIdentity
from vla.embed.encoders.vision_tower import TowerKind, VisionTower, VisionTowerConfig

if TYPE_CHECKING:
    from vla.embed.encoders.checkpoint import VisionCheckpoint

TINY_SIM, TINY_RANDOM = "siglip2-tiny-sim", "siglip2-tiny-random"
KIND = TowerKind(
    name="SigLIP",
    example="google/siglip2-base-patch16-256",
    classes={"siglip": "SiglipVisionModel", "siglip_vision_model": "SiglipVisionModel"},
    processors=("SiglipImageProcessor",),
    pooled_only=("head",),
    architecture={
        "hidden_size": None,
        "intermediate_size": None,
        "num_hidden_layers": None,
        "num_attention_heads": None,
        "num_channels": None,
        "image_size": None,
        "patch_size": None,
        "hidden_act": None,
        "layer_norm_eps": None,
        "vision_use_head": True,  # transformers 4 leaves it out where it has one
    },
    # transformers 4 keeps the tower in an attribute `vision_model`, transformers 5 saves it without that.
    names_in_transformers_4={r"^(?!vision_model\.)": "vision_model."},
)


class SiglipEncoder(VisionTower):
    """A SigLIP tower; its pooled feature is the checkpoint's attention pooling."""

    def __init__(self, tower: nn.Module, identity: EncoderIdentity, cameras: tuple[str, ...]) -> None:
        super().__init__(tower, identity, cameras)
        lay_out_activations(self.tower)


class SiglipConfig(VisionTowerConfig):
    """A SigLIP vision tower."""

    model_types: ClassVar[tuple[str, ...]] = tuple(KIND.classes)
    kind: ClassVar[TowerKind] = KIND
    encoder: ClassVar[type[VisionTower]] = SiglipEncoder

    type: Literal["siglip"] = "siglip"
    id: str = "google/siglip2-base-patch16-256"
    """Hub id, local directory, `siglip2-tiny-sim` or `siglip2-tiny-random`."""

    def load_checkpoint(self) -> "VisionCheckpoint":
        from vla.embed.encoders.siglip_checkpoint import load_checkpoint, uses_head

        checkpoint = load_checkpoint(self.id, self.revision, self.interpolation)
        if self.pool == "pooled" and not uses_head(checkpoint.model):
            raise EncoderError(
                f"{self.id} has no pooling head, so no pooler_output; use --pool mean or another checkpoint"
            )
        return checkpoint


def lay_out_activations(tower: nn.Module) -> None:
    """Lay a SigLIP tower's activations out as its matrix products read them; they stay what they are.

    transformers hands on two tensors that are transposed views. Everything after them pays for it:

        embeddings     [n, tokens, dim], dim not adjacent in memory. Sums keep that layout, so every layer
                       norm of every layer copies its input first, and the residual sums read across memory.
        pooling head   nn.MultiheadAttention takes [tokens, n, dim]; its projection of keys and values then
                       runs as many small products.

    Both are copied once, where they arise. The pooled output differs in its last digits, because its products
    sum in another order. SigLIP2-base on two CPU cores: 1.09 times as many images/s, a small tower 1.04
    (docs/log.md). Other towers than SigLIP's stay as they are.
    """
    # By name: importing the classes takes seconds. Lambdas: torch.compile does not see through the shape
    # checks that the tests put around functions.
    for module in tower.modules():
        if type(module).__name__ == "SiglipVisionEmbeddings":
            module.register_forward_hook(lambda _module, _inputs, embeddings: embeddings.contiguous())
        elif type(module).__name__ == "SiglipMultiheadAttentionPoolingHead":
            module.register_forward_pre_hook(
                lambda _module, inputs: inputs[0].transpose(0, 1).contiguous().transpose(0, 1)
            )
