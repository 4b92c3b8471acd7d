"""Vision transformers of the transformers library: what all kinds of them share.

A kind (`siglip`, `clip`, `dino`) is one file beside this one. It says which classes of transformers it
loads, what goes with them, and where in their output the pooled feature and the patch tokens are. Loading
is in `checkpoint`, preparing images in `processor_files`, what is kept of a view in `pooling`.
"""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor, nn

from vla.base.device import choose_dtype
from vla.cache.metadata import EncoderIdentity
from vla.embed.encoders.encoder import EncoderConfig, PerViewEncoder
from vla.embed.encoders.pooling import Pooling, num_tokens, pool
from vla.embed.transforms import BILINEAR, Preprocessing, normalise

if TYPE_CHECKING:
    from vla.embed.encoders.checkpoint import VisionCheckpoint

SMALL_TOWER_BATCH, SMALL_TOWER_BYTES = 16, 1 << 18
"""What a CPU core is quickest with depends on its cache: 8 images of SigLIP2-base, whose widest activation is
3 MB each (16: 0.96 of the rate), and 16 of a tower with up to 256 kB (8: 0.93; 4 and 64 are slower)."""


@dataclass(frozen=True, kw_only=True)
class TowerKind:
    """What there is to know of a kind of towers before one is loaded."""

    name: str
    """For people."""
    example: str
    """A checkpoint on the Hub."""
    classes: Mapping[str, str]
    """The class of transformers for each `model_type` of a config.json, those of two towers too."""
    processors: tuple[str, ...]
    """Image processors that go with it, the usual one first."""
    any_size: bool = False
    """Whether it takes squares of any size, because its positions are relative or interpolated."""
    architecture: Mapping[str, Any]
    """Keys of its config that decide what it computes beside the tensors, with what a missing one means."""
    of_both_towers: tuple[str, ...] = ()
    """Keys of a two-tower config.json that go before those of its vision tower."""
    unused: tuple[str, ...] = ()
    """Tensors that no image reaches: they may be missing, and identify nothing."""
    pooled_only: tuple[str, ...] = ()
    """Modules that decide the pooled feature and nothing about the patches."""
    published_names: Mapping[str, str] = field(default_factory=dict)
    """Parts of tensor names that transformers 5 calls otherwise than 4 and the files do: in identities they
    are the files'."""
    names_in_transformers_4: Mapping[str, str] = field(default_factory=dict)
    """Patterns of tensor names in files of transformers 5, and what transformers 4 calls them."""


class VisionTowerConfig(EncoderConfig, ABC):
    """A vision tower."""

    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    kind: ClassVar[TowerKind]
    encoder: ClassVar[type["VisionTower"]]

    pool: Pooling = "pooled"
    """What is kept of a view: `pooled`, the checkpoint's feature of the whole image; `mean` of all patch
    tokens; means over a grid of them, such as `grid2` (4 tokens), `grid4` (16) or `grid6x8` (48); or all
    `patches`."""
    interpolation: Literal["auto", "bilinear", "bicubic"] = "auto"
    """How images of another size are resized; `auto` is as the checkpoint's own processor does."""

    def build(self, cameras: tuple[str, ...], device: torch.device) -> "VisionTower":
        """Load the tower; transformers is imported here and not before."""
        from vla.embed.encoders.checkpoint import weights_sha256

        checkpoint = self.load_checkpoint()
        identity = EncoderIdentity(
            type=self.type,
            id=self.id,
            revision=checkpoint.commit,
            weights_sha256=weights_sha256(checkpoint.model, self.kind),
            dtype=choose_dtype(self.dtype, device),
            settings={"pooling": self.pool, **checkpoint.preprocessing.settings()},
        )
        return self.encoder(checkpoint.model, identity, cameras)

    def load_checkpoint(self) -> "VisionCheckpoint":
        """Load what `id` names.

        Raises:
            EncoderError: see `vla.embed.encoders.checkpoint.load_tower`.
        """
        from vla.embed.encoders.checkpoint import load_tower

        return load_tower(self.id, self.revision, self.kind, self.interpolation)

    @classmethod
    def settings_of(cls, identity: EncoderIdentity) -> dict[str, Any]:
        how = str(identity.settings.get("interpolation", BILINEAR)).partition("-")[0]
        return {"pool": identity.settings["pooling"], "interpolation": how}


class VisionTower(PerViewEncoder):
    """One tower for all views.

    Args:
        tower: of transformers, in float32; called with `pixel_values`, answers with `last_hidden_state` [n,
            tokens, dim] and its kind's pooled feature.
        identity: says the arithmetic, the pooling and the preprocessing.
        cameras: those it reads.

    Attributes:
        tower: in the identity's arithmetic; for those who build graphs of it.
        preprocessing: size, interpolation, mean and std of its input.
        pooling: what is kept of a view.
    """

    def __init__(self, tower: nn.Module, identity: EncoderIdentity, cameras: tuple[str, ...]) -> None:
        settings = identity.settings
        config: Any = tower.config
        pooling: Any = settings["pooling"]
        preprocessing = Preprocessing.model_validate(
            {key: settings[key] for key in Preprocessing.model_fields if key in settings}
        )
        side = preprocessing.input_size[0] // int(config.patch_size)
        dim = self.pooled_dim(config) if pooling == "pooled" else int(config.hidden_size)
        super().__init__(
            identity, cameras, shape=(num_tokens(pooling, side), dim), image_size=preprocessing.size
        )
        self.preprocessing, self.pooling, self._tokens = preprocessing, pooling, side**2
        self._dtype: torch.dtype = getattr(torch, identity.dtype)
        self.tower = tower
        for parameter in tower.parameters():  # buffers stay: DINOv3's rotations are angles in float32
            parameter.data = parameter.data.to(self._dtype)

    @classmethod
    def pooled_dim(cls, config: Any) -> int:
        """Return the width of the pooled feature."""
        return int(config.hidden_size)

    def pooled(self, output: Any) -> Float[Tensor, "n dim"]:
        """Return the feature of the whole image."""
        feature: Tensor = output.pooler_output
        return feature

    def patches(self, output: Any) -> Float[Tensor, "n patches dim"]:
        """Return the tokens of the patches, in rows from the top left; others come before them."""
        tokens: Tensor = output.last_hidden_state
        return tokens[:, -self._tokens :]

    def encode_view(self, frames: UInt8[Tensor, "n h w 3"]) -> Float16[Tensor, "n tokens dim"]:
        return self.features(frames).to(torch.float16)

    def features(self, frames: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n tokens dim"]:
        """Return what is kept of a view in the arithmetic of the tower, or better."""
        pixels = normalise(frames, self.preprocessing).to(self._dtype)
        output = self.tower(pixel_values=pixels)
        whole = self.pooling == "pooled"
        return self.pooled(output)[:, None] if whole else pool(self.patches(output), self.pooling)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the tower alone: what is before and after it stays the same to the last bit."""
        self.tower.compile(*args, **kwargs)

    def images_a_pass(self, device: torch.device) -> int:
        config: Any = self.tower.config
        width = getattr(config, "intermediate_size", 0) or config.hidden_size * config.mlp_ratio
        if device.type == "cpu" and 4 * self._tokens * width <= SMALL_TOWER_BYTES:
            return SMALL_TOWER_BATCH
        return super().images_a_pass(device)
