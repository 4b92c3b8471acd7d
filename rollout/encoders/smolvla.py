"""The frozen vision tower and connector of a SmolVLA: 64 tokens a view, as its language model reads them.

    frame ─ padded to 512 x 512 ─> SigLIP tower ─> 1,024 patches ─ pixel shuffle, projection ─> 64 tokens

The identity is the hash of all that is frozen in a SmolVLA, the language model included: what reads these
tokens must be the model that they were made for. A fine-tuned one, whose expert alone was trained, has the
same, so one cache serves all of them.

A task text becomes the numbers of its tokens, cut as LeRobot cuts it; the language model that reads them
is the policy's.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor, nn

from vla.base.device import choose_dtype
from vla.base.errors import ConfigError, EncoderError
from vla.cache.metadata import EncoderIdentity, TextIdentity
from vla.embed.encoders.encoder import EncoderConfig, PerViewEncoder
from vla.embed.text_encoders.text_encoder import (
    PROBE,
    TextEncoder,
    TextEncoderConfig,
    hash_of_tower,
    load_tokenizer,
)
from vla.embed.transforms import ImageSize, Preprocessing, normalise
from vla.policy.pretrained.smolvla_files import EXAMPLE, VLM, SmolVLAFiles

RESIZING = "bilinear-uint8, padded at the left and the top"


class SmolVLAEncoderConfig(EncoderConfig):
    """Vision tower and connector of a SmolVLA, for policy `smolvla`."""

    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    model_types: ClassVar[tuple[str, ...]] = ("smolvla",)
    hub_names: ClassVar[tuple[str, ...]] = ("lerobot/smolvla",)
    type: Literal["smolvla"] = "smolvla"
    id: str = EXAMPLE
    """A SmolVLA in LeRobot's format: a directory, or an id on the Hub."""
    language: bool = True
    """Cache the tokens of the task texts too, without which the policy cannot be trained."""

    def build(self, cameras: tuple[str, ...], device: torch.device) -> "SmolVLAEncoder":
        """Load tower and connector; transformers is imported here and not before."""
        files = self._open()
        size = files.settings.resize_imgs_with_padding
        assert size is not None  # SmolVLAFiles sees to it
        identity = EncoderIdentity(
            type=self.type,
            id=self.id,
            revision=files.commit,
            weights_sha256=files.frozen_sha256(),
            dtype=choose_dtype(self.dtype, device),
            settings={"image_size": [size[1], size[0]], "interpolation": RESIZING},
        )
        return SmolVLAEncoder(load_vision(files), identity, cameras)

    @classmethod
    def settings_of(cls, identity: EncoderIdentity) -> dict[str, Any]:
        return {}

    def _open(self) -> SmolVLAFiles:
        return open_files(self.id, self.revision)


class SmolVLATextConfig(TextEncoderConfig):
    """The tokeniser of a SmolVLA: its task texts are cached as the numbers of their tokens."""

    type: Literal["smolvla"] = "smolvla"
    id: str = EXAMPLE

    def load(self) -> "TaskTokens":
        files = open_files(self.id, self.revision)
        return TaskTokens(load_tokenizer(str(files.vlm), "main"), files.settings.tokenizer_max_length)


def open_files(name: str, revision: str) -> SmolVLAFiles:
    """Open a SmolVLA to encode with.

    Raises:
        EncoderError: it is not there, or is none.
    """
    try:
        return SmolVLAFiles.open(name, revision)
    except ConfigError as error:
        raise EncoderError(str(error)) from None


class SmolVLAEncoder(PerViewEncoder):
    """Tower and connector.

    Args:
        vision: both, in float32.
        identity: says the arithmetic and the size of images.
        cameras: those it reads.
    """

    def __init__(self, vision: "Vision", identity: EncoderIdentity, cameras: tuple[str, ...]) -> None:
        size: Any = identity.settings["image_size"]
        height, width = size
        super().__init__(
            identity,
            cameras,
            shape=vision.shape((height, width)),
            image_size=ImageSize((height, width), pads=True),
        )
        self._spec = Preprocessing(image_size=(height, width))  # to [-1, 1]
        self._dtype: torch.dtype = getattr(torch, identity.dtype)
        self.vision = vision.to(self._dtype)

    def encode_view(self, frames: UInt8[Tensor, "n h w 3"]) -> Float16[Tensor, "n tokens dim"]:
        pixels = normalise(frames, self._spec).to(self._dtype)
        return self.vision(pixels).to(torch.float16)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile tower and connector alone: what is before and after stays the same to the last bit."""
        self.vision.compile(*args, **kwargs)


class Vision(nn.Module):
    """A SmolVLM's vision tower and connector, by transformers' own classes.

    Args:
        config: of the SmolVLM.
    """

    def __init__(self, config: Any) -> None:
        from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector, SmolVLMVisionTransformer

        super().__init__()
        self.vision_model = SmolVLMVisionTransformer(config.vision_config)
        self.connector = SmolVLMConnector(config)
        self._patch = int(config.vision_config.patch_size) * int(config.scale_factor)
        self._width = int(config.text_config.hidden_size)

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return tokens and width of what comes out for images of (height, width) [pixel]."""
        return (size[0] // self._patch) * (size[1] // self._patch), self._width

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.vision_model(pixel_values=pixels).last_hidden_state
        tokens: Tensor = self.connector(patches)
        return tokens


def load_vision(files: SmolVLAFiles) -> Vision:
    """Build tower and connector, with the weights of a SmolVLA in float32.

    Raises:
        EncoderError: a tensor is missing, or of another shape than the SmolVLM's config.json says.
    """
    from transformers import SmolVLMConfig

    config = SmolVLMConfig.from_pretrained(str(files.vlm), local_files_only=True)
    with torch.random.fork_rng(devices=[]):
        vision = Vision(config)
    due = {f"{VLM}{name}": name for name in vision.state_dict()}
    try:
        tensors = files.read(due)
        vision.load_state_dict({due[name]: tensor for name, tensor in tensors.items()})
    except (ConfigError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"{files.name} and {files.settings.vlm_model_name} do not fit together: {said}"
        ) from None
    return vision


class TaskTokens(TextEncoder):
    """A SmolVLM's tokeniser: a text, with a newline at its end, to the numbers of its tokens; -1 past them.

    Args:
        tokenizer: of transformers.
        max_length: tokens that are kept of a text.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__()
        self._tokenizer, self._max_length = tokenizer, max_length
        self.identity = TextIdentity(
            weights_sha256=hash_of_tower("tokens", tokenizer, self._tokens(PROBE), {}),
            feature_dim=max_length,
            max_length=max_length,
        )

    def encode_one(self, text: str) -> Float[Tensor, "length"]:
        tokens = self._tokens(text)
        return torch.tensor([*tokens, *[-1] * (self._max_length - len(tokens))], dtype=torch.float32)

    def _tokens(self, text: str) -> list[int]:
        text = text if text.endswith("\n") else f"{text}\n"
        return list(self._tokenizer(text, truncation=True, max_length=self._max_length)["input_ids"])
