"""The frozen text tower of a two-tower checkpoint: a task in words in, one feature vector out.

As SigLIP2 was trained: text in lower case, always padded to the tower's length, without an attention mask;
its feature is that of the last position. Each different text is encoded once.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float32
from transformers import AutoTokenizer, SiglipTextModel
from transformers.utils import cached_file

from vla.base.errors import EncoderError
from vla.base.hub import HUB_ERRORS, first_line
from vla.base.progress import Progress
from vla.cache.metadata import TextIdentity
from vla.embed.encoders.checkpoint import require_on_hub
from vla.embed.encoders.encoder import EncoderConfig
from vla.embed.encoders.siglip import TINY_RANDOM, TINY_SIM

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
PROBE = "Pick up the RED cube, then hand it over: 2 cm higher!"
"""Its tokens are part of the identity: two tokenisers with one vocabulary may still cut differently."""
TOWER_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError)
"""What transformers raises depends on what is wrong with the files."""
TOKENIZER_ERRORS: tuple[type[Exception], ...] = (*HUB_ERRORS, *TOWER_ERRORS)
ADVICE = "language needs a two-tower checkpoint, such as google/siglip2-base-patch16-256"
MAX_KNOWN = 65_536
"""Texts whose features are kept, 200 MB of them; a served policy may be sent any number."""


class FrozenTextEncoder:
    """A SigLIP text tower with its tokeniser, on the CPU: texts are few.

    Args:
        model: the tower; called with `input_ids`, answers with `pooler_output`.
        tokenizer: of the same checkpoint.

    Attributes:
        identity: what it is called in caches and policies.
    """

    def __init__(self, model: SiglipTextModel, tokenizer: Any) -> None:
        self._model, self._tokenizer = model.eval().requires_grad_(False), tokenizer
        self._max_length = int(model.config.max_position_embeddings)
        self._known: dict[str, np.ndarray] = {}
        self.identity = TextIdentity(
            weights_sha256=self._hash(),
            feature_dim=int(getattr(model.config, "projection_size", None) or model.config.hidden_size),
            max_length=self._max_length,
        )

    @classmethod
    def load(cls, config: EncoderConfig) -> "FrozenTextEncoder":
        """Load the text half of the checkpoint that a configuration names.

        The vision half has been loaded before, so the weights are on this machine; the tokeniser may not be.

        Raises:
            EncoderError: the checkpoint has no text tower or no tokeniser, or they cannot be reached.
        """
        if (own := config.own_texts()) is not None:
            assert isinstance(own, cls)
            return own
        if config.type != "siglip":
            raise EncoderError(f"{config.id} has no text tower that encoder '{config.type}' reads; {ADVICE}")
        if config.id in (TINY_SIM, TINY_RANDOM) and not Path(config.id).is_dir():
            raise EncoderError(f"{config.id} has no text tower; {ADVICE}")
        transformers.logging.set_verbosity_error()  # it lists the vision tower's tensors as unexpected
        transformers.logging.disable_progress_bar()
        try:
            model, report = SiglipTextModel.from_pretrained(
                config.id,
                revision=config.revision,
                local_files_only=True,
                dtype=torch.float32,
                use_safetensors=True,  # never a pickle
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a vision tower has tensors of the same names; refused below
            )
        except TOWER_ERRORS as error:
            raise EncoderError(
                f"{config.id} has no text tower that can be read ({first_line(error)[:200]}); {ADVICE}"
            ) from error
        if report["missing_keys"] or report["mismatched_keys"]:
            raise EncoderError(f"{config.id} has no text tower; {ADVICE}")
        return cls(model, load_tokenizer(config.id, config.revision))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "n dim"]:
        """Encode texts; one that was seen before is not encoded again."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(new) > MAX_KNOWN:
            self._known.clear()
            new = list(dict.fromkeys(texts))
        with Progress("texts", len(new), unit="texts", quiet=len(new) < 100) as progress:
            for text in new:
                # One at a time: a text's feature does not depend on the others', to the last bit.
                output = self._model(input_ids=torch.tensor([self._tokens(text)]))
                self._known[text] = output.pooler_output[0].float().numpy()
                progress.update()
        return np.stack([self._known[text] for text in texts])

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

    def _hash(self) -> str:
        """Hash the architecture, the tensors in float32 and what the tokeniser does."""
        config = self._model.config
        architecture = {key: getattr(config, key, None) for key in ARCHITECTURE_KEYS}
        vocabulary = sorted(self._tokenizer.get_vocab().items())
        digest = hashlib.sha256()
        digest.update(json.dumps([architecture, vocabulary, self._tokens(PROBE)], sort_keys=True).encode())
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{name.removeprefix('text_model.')}{list(tensor.shape)}".encode())
            digest.update(tensor.detach().float().contiguous().numpy())
        return digest.hexdigest()


def load_tokenizer(name: str, revision: str) -> Any:
    """Load the tokeniser of a checkpoint; from the Hub, if it is not on this machine.

    Raises:
        EncoderError: there is none, it cannot be read, or it cannot be reached.
    """

    def is_there() -> bool:
        # Looked for first: without it transformers imports all its models to say so, which takes seconds.
        return None is not cached_file(
            name,
            "tokenizer_config.json",
            revision=revision,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )

    missing = f"{name} has no tokeniser beside its weights (tokenizer.json and tokenizer_config.json)"
    local = is_there()
    if not local:
        if Path(name).is_dir():
            raise EncoderError(missing)
        try:
            require_on_hub(name, revision)
        except EncoderError as error:
            raise EncoderError(f"the tokeniser of {name} is not on this machine: {error}") from error
    try:
        return AutoTokenizer.from_pretrained(
            name, revision=revision, local_files_only=local, trust_remote_code=False
        )
    except TOKENIZER_ERRORS as error:
        raise EncoderError(f"{missing} that can be read ({first_line(error)[:200]})") from error
