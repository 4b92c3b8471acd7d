"""The encoder that changes nothing: decoded, resized frames, for trunks that train on images.

vla embed --encoder pixels --set encoder.image_size=[96,96]
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from vla.base.strict import Width
from vla.cache.metadata import EncoderIdentity
from vla.embed.encoders.encoder import EncoderConfig, PerViewEncoder

INTERPOLATION = "bilinear-antialias-uint8"


class PixelsConfig(EncoderConfig):
    """Frames as they are, at one size."""

    dtypes: ClassVar[tuple[str, ...]] = ()
    type: Literal["pixels"] = "pixels"
    id: Literal["pixels"] = "pixels"
    """It has no weights, so there is one of it."""
    image_size: tuple[Width, Width] = (128, 128)
    """Height and width [pixel] that frames are stored at; 128 x 128 takes 48 KiB a frame and camera."""

    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """Keep frames as JPEG files of this quality, where disk is short; 95 is nearly as good as the frames."""

    def build(self, cameras: tuple[str, ...], device: torch.device) -> "PixelsEncoder":
        return PixelsEncoder(cameras, self.image_size, self.jpeg_quality)


class PixelsEncoder(PerViewEncoder):
    """The identity; frames have been resized before they come here.

    Args:
        cameras: those it reads.
        image_size: height and width [pixel].
        jpeg_quality: of the files that frames are kept as; None keeps them as they are.
    """

    def __init__(
        self, cameras: tuple[str, ...], image_size: tuple[int, int], jpeg_quality: int | None = None
    ) -> None:
        kept = {} if jpeg_quality is None else {"jpeg_quality": jpeg_quality}
        identity = EncoderIdentity(
            type="pixels",
            id="pixels",
            weights_sha256=None,
            dtype="uint8",
            settings={"image_size": list(image_size), "interpolation": INTERPOLATION, **kept},
        )
        super().__init__(
            identity, cameras, kind="image", dtype="uint8", shape=(*image_size, 3), image_size=image_size
        )
        self.writes = tuple(s.model_copy(update={"jpeg_quality": jpeg_quality}) for s in self.writes)

    def encode_view(self, frames: UInt8[Tensor, "n h w 3"]) -> UInt8[Tensor, "n h w 3"]:
        return frames

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Leave it as it is: there is nothing to compile."""
