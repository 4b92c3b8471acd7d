"""SigLIP and SigLIP2 vision towers: the default encoder, one feature vector a view, or several."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor, nn
from torch.nn import functional

from vla.base.device import choose_dtype
from vla.base.errors import EncoderError
from vla.cache.metadata import EncoderIdentity
from vla.embed.encoders.encoder import EncoderConfig, PerViewEncoder
from vla.embed.transforms import BILINEAR, Preprocessing, normalise

Pooling = Literal["pooled", "mean", "grid2", "grid4", "patches"]
GRID = {"mean": 1, "grid2": 2, "grid4": 4}
"""Cells along each side."""
SMALL_TOWER_BATCH, SMALL_TOWER_BYTES = 16, 1 << 18
"""What a CPU core is quickest with depends on its cache: 8 images of SigLIP2-base, whose widest activation is
3 MB each (16: 0.96 of the rate), and 16 of a tower with up to 256 kB (8: 0.93; 4 and 64 are slower)."""


class SiglipConfig(EncoderConfig):
    """A SigLIP vision tower."""

    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    model_types: ClassVar[tuple[str, ...]] = ("siglip", "siglip_vision_model")

    type: Literal["siglip"] = "siglip"
    id: str = "google/siglip2-base-patch16-256"
    """Hub id, local directory, `siglip2-tiny-sim` or `siglip2-tiny-random`."""
    pool: Pooling = "pooled"
    """What is kept of a view: `pooled`, the checkpoint's attention pooling (`pooler_output`); `mean` of
    all patch tokens; `grid2` or `grid4`, means over 2x2 or 4x4 cells; or all `patches`."""
    interpolation: Literal["auto", "bilinear", "bicubic"] = "auto"
    """How images of another size are resized; `auto` is as the checkpoint's own processor does."""

    def build(self, cameras: tuple[str, ...], device: torch.device) -> "SiglipEncoder":
        """Load the tower; transformers is imported here and not before."""
        from vla.embed.encoders.siglip_checkpoint import load_checkpoint, uses_head, weights_sha256

        checkpoint = load_checkpoint(self.id, self.revision, self.interpolation)
        tower = checkpoint.model
        if self.pool == "pooled" and not uses_head(tower):
            raise EncoderError(
                f"{self.id} has no pooling head, so no pooler_output; use --pool mean or another checkpoint"
            )
        identity = EncoderIdentity(
            type=self.type,
            id=self.id,
            revision=checkpoint.commit,
            weights_sha256=weights_sha256(tower),
            dtype=choose_dtype(self.dtype, device),
            settings={"pooling": self.pool, **checkpoint.preprocessing.model_dump(mode="json")},
        )
        return SiglipEncoder(tower, identity, cameras)

    @classmethod
    def settings_of(cls, identity: EncoderIdentity) -> dict[str, Any]:
        how = str(identity.settings.get("interpolation", BILINEAR)).partition("-")[0]
        return {"pool": identity.settings["pooling"], "interpolation": how}


class SiglipEncoder(PerViewEncoder):
    """One tower for all views.

    Args:
        tower: a `SiglipVisionModel` in float32; called with `pixel_values`, answers with `pooler_output` [n,
            dim] and `last_hidden_state` [n, patches, dim].
        identity: says the arithmetic, the pooling and the preprocessing.
        cameras: those it reads.

    Attributes:
        tower: in the identity's arithmetic; for those who build graphs of it.
        preprocessing: size, interpolation, mean and std of its input.
        pooling: what is kept of a view.
    """

    def __init__(self, tower: nn.Module, identity: EncoderIdentity, cameras: tuple[str, ...]) -> None:
        settings = identity.settings
        pooling: Any = settings["pooling"]
        preprocessing = Preprocessing.model_validate(
            {key: settings[key] for key in Preprocessing.model_fields if key in settings}
        )
        patches = (tower.config.image_size // tower.config.patch_size) ** 2  # type: ignore[union-attr,operator]
        shape = (num_tokens(pooling, patches), int(tower.config.hidden_size))  # type: ignore[union-attr,arg-type]
        super().__init__(identity, cameras, shape=shape, image_size=preprocessing.size)
        self.preprocessing, self.pooling = preprocessing, pooling
        self._dtype: torch.dtype = getattr(torch, identity.dtype)
        self.tower = tower.to(dtype=self._dtype)
        lay_out_activations(self.tower)

    def encode_view(self, frames: UInt8[Tensor, "n h w 3"]) -> Float16[Tensor, "n tokens dim"]:
        pixels = normalise(frames, self.preprocessing).to(self._dtype)
        return pool(self.tower(pixel_values=pixels), self.pooling).to(torch.float16)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the tower alone: what is before and after it stays the same to the last bit."""
        self.tower.compile(*args, **kwargs)

    def images_a_pass(self, device: torch.device) -> int:
        config: Any = self.tower.config
        widest = 4 * (config.image_size // config.patch_size) ** 2 * config.intermediate_size
        if device.type == "cpu" and widest <= SMALL_TOWER_BYTES:
            return SMALL_TOWER_BATCH
        return super().images_a_pass(device)


def num_tokens(pooling: Pooling, patches: int) -> int:
    """Return how many vectors of a view are kept, out of its number of patches."""
    if pooling == "pooled":
        return 1
    return patches if pooling == "patches" else GRID[pooling] ** 2


def pool(output: Any, pooling: Pooling) -> Float[Tensor, "n tokens dim"]:
    """Reduce a vision tower's output.

    Args:
        output: with `pooler_output` [n, dim] and `last_hidden_state` [n, patches, dim], the patches in
            rows from the top left.
        pooling: which reduction.
    """
    if pooling == "pooled":
        pooled: Tensor = output.pooler_output
        return pooled[:, None]
    patches: Tensor = output.last_hidden_state
    if pooling == "patches":
        return patches
    side = round(patches.shape[1] ** 0.5)
    maps = patches.transpose(1, 2).unflatten(2, (side, side))
    # In float32: half-precision sums of many patches lose digits.
    cells = functional.adaptive_avg_pool2d(maps.to(torch.float32), GRID[pooling])
    return cells.flatten(2).transpose(1, 2)


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
