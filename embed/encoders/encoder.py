"""What stage one and the live policy ask of an encoder, and the family of those there are.

    observation  {camera: uint8 [n, h, w, 3]}  the same n instants through each camera that it reads
       │ Encoder.encode, frozen and without gradients
    observation  {stream: [n, *shape]}         the streams that it writes, on its device

A per-view encoder reads each camera by itself and writes one stream a camera, named as the camera; a joint
one reads all of them at once and writes what it likes. Batches, devices, uploads and compiling are not its
business but `vla.embed.frozen_encoder`'s.

A new encoder is one file in this folder, or in a plugin: its configuration, a subclass of `EncoderConfig`
with `type: Literal["name"] = "name"`, beside its class.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from vla.base.compiling import Compile
from vla.base.errors import EncoderError
from vla.base.strict import StrictModel
from vla.cache.metadata import EncoderIdentity
from vla.cache.stream import DType, Kind, Stream

CPU_BATCH, GPU_BATCH = 8, 512


class Encoder(nn.Module, ABC):
    """A frozen function of camera frames.

    Attributes:
        identity: what decides its numbers.
        reads: cameras, in order.
        writes: streams, each made by `identity`.
        image_size: (height, width) [pixel] that frames are resized to before, on the CPU.
        joint: whether it must see all cameras of an instant together. If not, `encode` takes any number of
            rows of each camera, and only those cameras that there are rows of.
    """

    joint: bool = True

    def __init__(
        self,
        identity: EncoderIdentity,
        reads: tuple[str, ...],
        writes: tuple[Stream, ...],
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        if identity.reads != (reads if self.joint else ()):
            told = "all of them, in order" if self.joint else "none: it encodes each view by itself"
            raise EncoderError(
                f"encoder {identity.type} reads {', '.join(reads)}, its identity.reads names "
                f"{', '.join(identity.reads) or 'none'}; it must name {told}"
            )
        self.identity, self.reads, self.writes, self.image_size = identity, reads, writes, image_size

    @abstractmethod
    def encode(self, observation: Mapping[str, UInt8[Tensor, "_n h w 3"]]) -> dict[str, Tensor]:
        """Encode the same instants seen by its cameras; frames have its size and are on its device."""

    def forward(self, observation: Mapping[str, UInt8[Tensor, "_n h w 3"]]) -> dict[str, Tensor]:
        return self.encode(observation)

    def images_a_pass(self, device: torch.device) -> int:
        """Return how many images a forward pass takes, where it is not configured."""
        return CPU_BATCH if device.type == "cpu" else GPU_BATCH


class PerViewEncoder(Encoder):
    """An encoder that sees every frame by itself.

    Args:
        identity: what decides its numbers.
        cameras: those it reads.
        kind: of the stream that it writes of a camera.
        dtype: of the stream.
        shape: of the stream, a frame.
        image_size: (height, width) [pixel] of the frames.
    """

    joint = False

    def __init__(
        self,
        identity: EncoderIdentity,
        cameras: tuple[str, ...],
        *,
        kind: Kind = "tokens",
        dtype: DType = "float16",
        shape: tuple[int, ...],
        image_size: tuple[int, int],
    ) -> None:
        made_by = identity.digest
        super().__init__(
            identity,
            cameras,
            tuple(
                Stream(name=camera, kind=kind, dtype=dtype, shape=shape, made_by=made_by)
                for camera in cameras
            ),
            image_size,
        )

    @abstractmethod
    def encode_view(self, frames: UInt8[Tensor, "n h w 3"]) -> Tensor:
        """Encode frames, whichever cameras they come from: [n, *shape]."""

    def encode(self, observation: Mapping[str, UInt8[Tensor, "_n h w 3"]]) -> dict[str, Tensor]:
        """Encode all views in one pass; they are rows of one batch, so they never meet."""
        views = {camera: observation[camera] for camera in self.reads if camera in observation}
        frames = list(views.values())
        encoded = self.encode_view(frames[0] if len(frames) == 1 else torch.cat(frames))
        return dict(zip(views, encoded.split([len(view) for view in frames]), strict=True))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile `encode_view`: it is called with few sizes, whichever cameras make them up."""
        self.encode_view = torch.compile(self.encode_view, *args, **kwargs)  # type: ignore[method-assign]


class EncoderConfig(StrictModel, ABC):
    """Which frozen encoder, and how it runs: table `[encoder]`."""

    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    """Arithmetic that it can be asked for; float32 alone goes without saying."""
    model_types: ClassVar[tuple[str, ...]] = ()
    """What a checkpoint's config.json calls itself for the encoder to be chosen without `type`."""
    hub_names: ClassVar[tuple[str, ...]] = ()
    """Beginnings of Hub ids for which it is chosen without `type`, before there is a config.json."""

    type: str
    """Of the family; without it `id` decides: a member's name, or a directory that says what it holds."""
    id: str
    """Hub id, local directory, or the name of an encoder that comes with vla."""
    revision: str = "main"
    """Branch, tag or commit on the Hub; meaningless for directories."""
    device: str = "auto"
    """auto, cuda, cuda:1, mps, cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is bfloat16 on a GPU, float32 on a CPU."""
    batch_size: Annotated[int, Field(ge=0)] = 0
    """Images a forward pass; 0 is 8 on a CPU, 16 for small towers; on a GPU it is measured
    for large datasets, else 512."""
    compile: Compile = "off"
    """off, on (torch.compile) or graphs (CUDA graphs too, in rollouts); see `vla.base.compiling`."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Threads that decode images, besides one for each camera with videos; 0 chooses by cores."""
    language: bool = False
    """Encode the task texts too, once each, with the text tower of the same checkpoint."""

    @model_validator(mode="after")
    def _arithmetic_is_known(self) -> "EncoderConfig":
        if self.dtype not in ("auto", *self.dtypes):
            known = ", ".join(("auto", *self.dtypes))
            raise ValueError(
                f"dtype '{self.dtype}' is nothing for encoder '{self.type}', which takes {known}"
            )
        return self

    @property
    def name(self) -> str:
        """What folders made with it are called."""
        return Path(self.id).name

    def files(self) -> Mapping[str, bytes]:
        """Return what caches and runs keep of it, by file name, so that it is there when its place is gone.

        Nothing of an encoder that can be had again: from the Hub, or with vla.
        """
        return {}

    @abstractmethod
    def build(self, cameras: tuple[str, ...], device: torch.device) -> Encoder:
        """Load the encoder, as it is to run on a device; moving it there is up to the caller.

        Raises:
            EncoderError: its weights cannot be reached, or are not what they should be.
        """

    def own_texts(self) -> Any:
        """Return what turns task texts into numbers, a `FrozenTextEncoder`, where the encoder brings its own.

        None leaves it to the text tower of the same checkpoint.
        """
        return None

    def identity(self, weights: nn.Module | None = None, reads: tuple[str, ...] = ()) -> EncoderIdentity:
        """Identify an encoder that computes in float32, by the configuration's own keys and its weights.

        Args:
            weights: whatever it computes with; None is nothing.
            reads: the cameras of a joint encoder, in order.
        """
        return EncoderIdentity(
            type=self.type,
            id=self.id,
            weights_sha256=None if weights is None else hash_of(weights),
            dtype="float32",
            reads=reads,
            settings=self.model_dump(mode="json", include=type(self).own_keys()),
        )

    @classmethod
    def settings_of(cls, identity: EncoderIdentity) -> dict[str, Any]:
        """Return which of the configuration's own keys make an encoder of that identity."""
        return {key: identity.settings[key] for key in cls.own_keys() if key in identity.settings}

    @classmethod
    def own_keys(cls) -> set[str]:
        """Return the keys that this encoder has beside those of every encoder."""
        return cls.model_fields.keys() - EncoderConfig.model_fields.keys()


def hash_of(weights: nn.Module) -> str:
    """Hash the names, shapes and float32 values of a module's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
