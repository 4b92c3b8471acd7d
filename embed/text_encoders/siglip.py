"""The text tower of a SigLIP checkpoint.

As SigLIP2 was trained: text in lower case, always padded to the tower's length, without an attention mask;
its feature is that of the last position.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import transformers
from torch import Tensor
from transformers import SiglipTextModel

from vla.base.errors import EncoderError
from vla.base.hub import first_line
from vla.cache.metadata import TextIdentity
from vla.embed.encoders.siglip import TINY_RANDOM, TINY_SIM
from vla.embed.text_encoders.text_encoder import (
    PROBE,
    TOWER_ERRORS,
    TextEncoder,
    TextEncoderConfig,
    hash_of_tower,
    load_tokenizer,
)

ARCHITECTURE_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "projection_size",
)
ADVICE = (
    "language needs a two-tower checkpoint, such as google/siglip2-base-patch16-256, or a text encoder "
    "beside it: --text-encoder minilm"
)


class SiglipTextConfig(TextEncoderConfig):
    """The text tower of a two-tower checkpoint."""

    model_types: ClassVar[tuple[str, ...]] = ("siglip",)
    hub_names: ClassVar[tuple[str, ...]] = ("google/siglip",)
    type: Literal["siglip"] = "siglip"
    id: str = "google/siglip2-base-patch16-256"

    def load(self) -> "SiglipText":
        """Load the text half; where the vision half was loaded before, all weights are on this machine."""
        if self.id in (TINY_SIM, TINY_RANDOM) and not Path(self.id).is_dir():
            raise EncoderError(f"{self.id} has no text tower; {ADVICE}")
        transformers.logging.set_verbosity_error()  # it lists the vision tower's tensors as unexpected
        transformers.logging.disable_progress_bar()
        try:
            model, report = SiglipTextModel.from_pretrained(
                self.id,
                revision=self.revision,
                local_files_only=True,
                dtype=torch.float32,
                use_safetensors=True,  # never a pickle
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a vision tower has tensors of the same names; refused below
            )
        except TOWER_ERRORS as error:
            raise EncoderError(
                f"{self.id} has no text tower that can be read ({first_line(error)[:200]}); {ADVICE}"
            ) from error
        if report["missing_keys"] or report["mismatched_keys"]:
            raise EncoderError(f"{self.id} has no text tower; {ADVICE}")
        return SiglipText(model, load_tokenizer(self.id, self.revision))


class SiglipText(TextEncoder):
    """A SigLIP text tower with its tokeniser.

    Args:
        model: the tower; called with `input_ids`, answers with `pooler_output`.
        tokenizer: of the same checkpoint.
    """

    def __init__(self, model: SiglipTextModel, tokenizer: Any) -> None:
        super().__init__()
        self._model, self._tokenizer = model.eval().requires_grad_(False), tokenizer
        self._max_length = int(model.config.max_position_embeddings)
        architecture = {key: getattr(model.config, key, None) for key in ARCHITECTURE_KEYS}
        tensors = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
        self.identity = TextIdentity(
            weights_sha256=hash_of_tower(architecture, tokenizer, self._tokens(PROBE), tensors),
            feature_dim=int(getattr(model.config, "projection_size", None) or model.config.hidden_size),
            max_length=self._max_length,
        )

    def encode_one(self, text: str) -> Tensor:
        return self._model(input_ids=torch.tensor([self._tokens(text)])).pooler_output[0]

    def _tokens(self, text: str) -> list[int]:
        encoded = self._tokenizer(
            text.lower(),
            padding="max_length",
            # Named, because the last position is the feature: transformers' own default for SigLIP2 is left.
            padding_side="right",
            truncation=True,
            max_length=self._max_length,
        )
        return list(encoded["input_ids"])
