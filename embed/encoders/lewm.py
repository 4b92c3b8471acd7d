"""LEWM, the encoder of a world model: it sees all cameras in one image and writes one vector an instant.

vla embed --encoder runs/lewm
vla embed --encoder epoch=99.ckpt --set encoder.type=lewm --set encoder.layout=row

How pixels become the vector is written at the head of `vla.base.lewm`.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from vla.base.device import choose_dtype
from vla.base.errors import EncoderError
from vla.base.lewm import Layout, LewmInput, LewmVision, fuse, prepare
from vla.base.strict import Width
from vla.cache.metadata import EncoderIdentity
from vla.cache.stream import Stream
from vla.embed.encoders.encoder import Encoder, EncoderConfig

STREAM = "lewm"
FOREIGN: Mapping[str, Any] = {"layout": "row", "view_size": (256, 256), "image_size": 224}
"""Of a checkpoint that does not say: three views of 256 x 256 become 224 x 672, 769 tokens."""


class LewmConfig(EncoderConfig):
    """All views in one image, one vector: the encoder of LeWorldModel."""

    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    model_types: ClassVar[tuple[str, ...]] = ("lewm",)

    type: Literal["lewm"] = "lewm"
    id: str = "runs/lewm"
    """A run of `vla pretrain lewm`, a checkpoint of Lightning, `weights.pt`, or a folder with one. Views are
    fused in the order of `dataset.cameras`."""
    layout: Literal["auto", "row", "column", "grid"] = "auto"
    """How views are fused: left to right, top to bottom, or two a row; `auto` is as the checkpoint says, else
    `row`."""
    view_size: Literal["auto"] | tuple[Width, Width] = "auto"
    """Height and width [pixel] that each view has before; `auto` is the checkpoint's, else 256 x 256."""
    image_size: Literal["auto"] | Width = "auto"
    """Shorter side [pixel] of the fused image that the ViT sees; `auto` is the checkpoint's, else 224."""

    def build(self, cameras: tuple[str, ...], device: torch.device) -> "LewmEncoder":
        """Load the encoder; transformers is imported here and not before.

        Raises:
            EncoderError: there is no checkpoint, or it was trained to look at something else.
        """
        from vla.embed.encoders.lewm_checkpoint import load_lewm

        checkpoint = load_lewm(self.id)
        looks_at = self._looks_at(cameras, checkpoint.looks_at)
        identity = EncoderIdentity(
            type=self.type,
            id=self.id,
            weights_sha256=checkpoint.sha256,
            dtype=choose_dtype(self.dtype, device),
            reads=cameras,
            settings=looks_at.model_dump(mode="json", include=type(self).own_keys()),
        )
        return LewmEncoder(checkpoint.vision, identity, looks_at)

    def _looks_at(self, cameras: tuple[str, ...], trained: LewmInput | None) -> LewmInput:
        """Hold what is asked against what the checkpoint was trained to look at."""
        asked = {key: getattr(self, key) for key in type(self).own_keys()}
        given = {key: value for key, value in asked.items() if value != "auto"}
        if trained is None:
            return LewmInput(cameras=cameras, **{**FOREIGN, **given})
        if cameras != trained.cameras:
            raise EncoderError(
                f"{self.id} was trained to look through {', '.join(trained.cameras)}, in this order, not "
                f"through {', '.join(cameras)}: --set 'dataset.cameras={json.dumps(trained.cameras)}'"
            )
        for key, value in given.items():
            if value != (due := getattr(trained, key)):
                raise EncoderError(
                    f"{self.id} was trained with {key} = {json.dumps(due)}, not {json.dumps(value)}; leave "
                    f"encoder.{key} out"
                )
        return trained


class LewmEncoder(Encoder):
    """A ViT and a projector over all views of an instant, fused into one image.

    Args:
        vision: in float32.
        identity: says the arithmetic of the ViT; the projector stays in float32.
        looks_at: which cameras in which order, and how they are fused.

    Attributes:
        camera_names: in the order in which their views are fused.
        joint_output_dim: numbers of an instant, 192 in the paper.
    """

    def __init__(self, vision: LewmVision, identity: EncoderIdentity, looks_at: LewmInput) -> None:
        made_by, shape = identity.digest, (1, vision.sizes.dim)
        stream = Stream(name=STREAM, kind="tokens", dtype="float16", shape=shape, made_by=made_by)
        super().__init__(identity, looks_at.cameras, (stream,), looks_at.view_size)
        self.camera_names, self.joint_output_dim = looks_at.cameras, vision.sizes.dim
        self._layout: Layout = looks_at.layout
        self._image_size = looks_at.image_size
        self._dtype: torch.dtype = getattr(torch, identity.dtype)
        self.vision = vision
        self.vision.encoder.to(dtype=self._dtype)
        self.requires_grad_(False).eval()

    @property
    def num_cameras(self) -> int:
        return len(self.camera_names)

    def train(self, mode: bool = True) -> "LewmEncoder":
        """Stay in evaluation mode: in training mode BatchNorm would mix the rows of a batch and forget."""
        return super().train(False)

    def encode(
        self, observation: Mapping[str, UInt8[Tensor, "_n h w 3"]]
    ) -> dict[str, Float16[Tensor, "_n 1 dim"]]:
        """Encode the same instants seen by its cameras."""
        image = fuse([observation[camera] for camera in self.camera_names], self._layout)
        feature = self.vision(prepare(image, self._image_size).to(self._dtype))
        return {STREAM: feature[:, None].to(torch.float16)}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile ViT and projector alone: what is before them stays the same to the last bit."""
        self.vision.compile(*args, **kwargs)
