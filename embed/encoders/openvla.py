"""The fused patches of an OpenVLA: what its projector and language model read of an image (arXiv 2406.09246).

    frame, squashed to 224 x 224
     ├─ ImageNet's mean and deviation ─> DINOv2 ─> 256 patches of 1,024 ─┐
     └─ to [-1, 1] ────────────────────> SigLIP ─> 256 patches of 1,152 ─┴─> side by side, [256, 2176]

Both towers answer with the patches of the block before their last, without class token, registers or norm.
For policy `openvla`, which reads them of one camera; any other policy may read them of all.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float16, UInt8
from torch import Tensor, nn

from vla.base.device import choose_dtype
from vla.base.errors import ConfigError, EncoderError
from vla.base.openvla import EXAMPLE, OpenVLAFiles
from vla.cache.metadata import EncoderIdentity
from vla.embed.encoders.encoder import EncoderConfig, PerViewEncoder
from vla.embed.transforms import BICUBIC, Preprocessing, normalise

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class OpenVLAEncoderConfig(EncoderConfig):
    """Fused patches of DINOv2 and SigLIP out of an OpenVLA, for policy `openvla`."""

    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    model_types: ClassVar[tuple[str, ...]] = ("openvla",)
    hub_names: ClassVar[tuple[str, ...]] = ("openvla/openvla-7b",)

    type: Literal["openvla"] = "openvla"
    id: str = EXAMPLE
    """An OpenVLA in the format of the Hub: a directory, or an id on the Hub."""

    def build(self, cameras: tuple[str, ...], device: torch.device) -> "OpenVLAEncoder":
        """Load both towers; transformers is imported here and not before.

        Raises:
            EncoderError: there is no OpenVLA, or it lacks a tensor.
        """
        from vla.embed.encoders.openvla_towers import load_dino, load_siglip

        try:
            files = OpenVLAFiles.open(self.id, self.revision)
            sha256 = files.sha256(files.vision())
        except ConfigError as error:
            raise EncoderError(str(error)) from None
        if len(set(files.settings.image_sizes)) > 1:
            raise EncoderError(f"{self.id}: image_sizes = {files.settings.image_sizes} must be one size")
        identity = EncoderIdentity(
            type=self.type,
            id=self.id,
            revision=files.commit,
            weights_sha256=sha256,
            dtype=choose_dtype(self.dtype, device),
            settings={
                "towers": list(files.settings.timm_model_ids),
                "image_size": [files.settings.image_sizes[0]] * 2,
                "interpolation": BICUBIC,
            },
        )
        return OpenVLAEncoder(load_dino(files), load_siglip(files), identity, cameras)

    @classmethod
    def settings_of(cls, identity: EncoderIdentity) -> dict[str, Any]:
        return {}


class OpenVLAEncoder(PerViewEncoder):
    """Two towers for all views.

    Args:
        dino: in float32, as `vla.embed.encoders.openvla_towers` loads it.
        siglip: the same.
        identity: says the arithmetic and the size of images.
        cameras: those it reads.
    """

    def __init__(
        self, dino: nn.Module, siglip: nn.Module, identity: EncoderIdentity, cameras: tuple[str, ...]
    ) -> None:
        how = Preprocessing.model_validate(
            {"image_size": identity.settings["image_size"], "interpolation": BICUBIC}
        )
        configs: list[Any] = [dino.config, siglip.config]
        tokens = (how.image_size[0] // configs[0].patch_size) ** 2
        width = sum(config.hidden_size for config in configs)
        super().__init__(identity, cameras, shape=(tokens, width), image_size=how.size)
        self._tokens, self._for_siglip = tokens, how
        self._for_dino = how.model_copy(update=IMAGENET)
        self._dtype: torch.dtype = getattr(torch, identity.dtype)
        self.dino, self.siglip = dino.to(self._dtype), siglip.to(self._dtype)

    def encode_view(self, frames: UInt8[Tensor, "n h w 3"]) -> Float16[Tensor, "n tokens dim"]:
        of_dino = self.dino(pixel_values=normalise(frames, self._for_dino).to(self._dtype))
        of_siglip = self.siglip(pixel_values=normalise(frames, self._for_siglip).to(self._dtype))
        patches = [output.last_hidden_state[:, -self._tokens :] for output in (of_dino, of_siglip)]
        return torch.cat(patches, dim=-1).to(torch.float16)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the towers alone: what is before and after stays the same to the last bit."""
        self.dino.compile(*args, **kwargs)
        self.siglip.compile(*args, **kwargs)
