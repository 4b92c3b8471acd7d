"""A whole vision-language model, frozen: it reads all cameras and a prompt, and its hidden states are cached.

    camera 1 ─┐ image tokens │ … │ prompt
    camera 2 ─┴──────────────┴───┴───────── the first `layer` layers of the language model
    vlm [tokens, dim]   of each camera its image tokens, then the prompt's, which have seen all of them

So a policy of GR00T's kind (arXiv 2503.14734: a frozen VLM, hidden states of a middle layer, a trained action
transformer) trains from the cache. The prompt is one for the whole cache; why the instruction is not in it:
docs/decisions/0033.

Each token is divided by its root mean square, as every layer does with what it reads: single numbers of a
language model's hidden states are in the thousands, and float16 ends at 65,504.

n instants, L tokens of the sequence, D width of the language model.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Float16, UInt8
from pydantic import Field, field_validator
from torch import Tensor

from vla.base.device import choose_dtype
from vla.base.strict import Width
from vla.cache.metadata import EncoderIdentity
from vla.cache.stream import Stream
from vla.embed.encoders.encoder import Encoder, EncoderConfig
from vla.embed.encoders.pooling import Pooling, num_tokens, pool
from vla.embed.encoders.vlm_kinds import KINDS
from vla.embed.transforms import normalise

if TYPE_CHECKING:
    from vla.embed.encoders.vlm_checkpoint import VlmCheckpoint

STREAM = "vlm"
SMALLEST = 1e-6
IMAGES_ON_A_GPU = 32
"""Of a pass; each is up to 1,024 patches in the vision tower. What does not fit is halved."""


class VlmConfig(EncoderConfig):
    """SmolVLM, Idefics 3, PaliGemma, Qwen2-VL or Qwen2.5-VL, whole."""

    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    model_types: ClassVar[tuple[str, ...]] = tuple(KINDS)
    hub_names: ClassVar[tuple[str, ...]] = (
        "HuggingFaceTB/SmolVLM",
        "HuggingFaceM4/Idefics3",
        "google/paligemma",
        "Qwen/Qwen2-VL",
        "Qwen/Qwen2.5-VL",
    )

    type: Literal["vlm"] = "vlm"
    id: str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    """Hub id or directory. Images come in the order of `dataset.cameras`."""
    layer: int = Field(default=0, ge=0, le=1024)
    """Layers of the language model that are computed; 0 is half of them, which is what GR00T N1 takes."""
    prompt: str = "What should the robot do next?"
    """What it reads after the images, the same for all of the cache."""
    pool: Pooling = "patches"
    """What is kept of the image tokens of each camera: all `patches`, means over a grid such as `grid4`, or
    their `mean`."""
    image_size: Literal["auto"] | Width = "auto"
    """Height and width [pixel] that images are squashed to; `auto` is the checkpoint's, and 224 for Qwen,
    which takes multiples of 28."""

    @field_validator("pool")
    @classmethod
    def _is_of_patches(cls, pool: str) -> str:
        if pool == "pooled":
            raise ValueError(
                "a VLM has no feature of the whole image; take patches, mean, or a grid like grid4"
            )
        return pool

    def build(self, cameras: tuple[str, ...], device: torch.device) -> "VlmEncoder":
        """Load the model; transformers is imported here and not before."""
        from vla.embed.encoders.vlm_checkpoint import load_vlm

        found = load_vlm(
            self.id, self.revision, layer=self.layer, prompt=self.prompt, image_size=self.image_size
        )
        identity = EncoderIdentity(
            type=self.type,
            id=self.id,
            revision=found.commit,
            weights_sha256=found.sha256,
            dtype=choose_dtype(self.dtype, device),
            reads=cameras,
            settings={
                "layer": found.layer,
                "prompt": self.prompt,
                "pool": self.pool,
                "image_size": found.preprocessing.image_size[0],
                "mean": list(found.preprocessing.mean),
                "std": list(found.preprocessing.std),
            },
        )
        return VlmEncoder(found, identity)


class VlmEncoder(Encoder):
    """A vision-language model over all views of an instant, in one sequence.

    Args:
        checkpoint: the model, cut off above the layer that is kept.
        identity: which cameras, and what is kept of them.

    Attributes:
        ids: [L] int64, what it reads: places of image tokens, and the prompt.

    Raises:
        EncoderError: the grid has more cells along an edge than an image has tokens.
    """

    ids: Tensor

    def __init__(self, checkpoint: "VlmCheckpoint", identity: EncoderIdentity) -> None:
        cameras, side = identity.reads, checkpoint.side
        self._pooling = str(identity.settings["pool"])
        sequence = checkpoint.sequence(len(cameras))
        tail = len(sequence.ids) - sequence.tail
        count = len(cameras) * num_tokens(self._pooling, side) + tail
        stream = Stream(
            name=STREAM,
            kind="tokens",
            dtype="float16",
            shape=(count, checkpoint.width),
            made_by=identity.digest,
        )
        super().__init__(identity, cameras, (stream,), checkpoint.preprocessing.size)
        self._kind, self._checkpoint_config = checkpoint.kind, checkpoint.model.config
        self._preprocessing, self._images, self._tail = (
            checkpoint.preprocessing,
            sequence.images,
            sequence.tail,
        )
        self._dtype: torch.dtype = getattr(torch, identity.dtype)
        self.register_buffer("ids", torch.tensor(sequence.ids), persistent=False)
        self.model: Any = checkpoint.model.to(self._dtype)

    def encode(
        self, observation: Mapping[str, UInt8[Tensor, "_n h w 3"]]
    ) -> dict[str, Float16[Tensor, "_n tokens D"]]:
        """Encode the same instants seen by its cameras."""
        views = [normalise(observation[camera], self._preprocessing) for camera in self.reads]
        hidden = self._hidden(torch.stack(views, dim=1).to(self._dtype)).float()
        kept = [pool(hidden[:, span.start : span.stop], self._pooling) for span in self._images]
        tokens = torch.cat([*kept, hidden[:, self._tail :]], dim=1)
        size = tokens.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=SMALLEST)
        return {STREAM: (tokens / size).to(torch.float16)}

    def _hidden(self, pixels: Float[Tensor, "n cameras 3 h w"]) -> Float[Tensor, "n L D"]:
        ids = self.ids.expand(len(pixels), -1)
        inputs = self._kind.inputs(pixels, ids, self._checkpoint_config)
        found = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **inputs)
        return found.last_hidden_state

    def images_a_pass(self, device: torch.device) -> int:
        return super().images_a_pass(device) if device.type == "cpu" else IMAGES_ON_A_GPU
