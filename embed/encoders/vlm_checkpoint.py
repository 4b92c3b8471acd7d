"""Load a vision-language model from the Hub or a directory, and cut it off above the layer that is kept."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import transformers
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.utils import cached_file

from vla.base.errors import EncoderError
from vla.base.hub import HUB_ERRORS, first_line
from vla.embed.encoders.checkpoint import require_on_hub
from vla.embed.encoders.encoder import hash_of
from vla.embed.encoders.encoder_family import read_config
from vla.embed.encoders.processor_files import FLAT, NESTED
from vla.embed.encoders.vlm_kinds import KINDS, VlmKind
from vla.embed.text_encoders.text_encoder import load_tokenizer
from vla.embed.transforms import Preprocessing

ANY_SIZE = 224
"""Height and width [pixel] of images where the model takes any."""


@dataclass(frozen=True)
class Sequence:
    """The tokens that the model reads at every instant."""

    ids: list[int]
    images: list[range]
    """Places of each camera's image tokens."""
    tail: int
    """Place of the first token after them."""


@dataclass(frozen=True, kw_only=True)
class VlmCheckpoint:
    """A model in its stored arithmetic on the CPU."""

    model: Any
    """Without output layer; its `last_hidden_state` is of the last layer that is kept."""
    kind: VlmKind
    layer: int
    side: int
    """Image tokens along the edge of an image."""
    width: int
    preprocessing: Preprocessing
    texts: tuple[list[int], list[int], list[int], list[int]]
    """Ids of what stands before, around and after images."""
    image_id: int
    sha256: str
    """Of the tensors that are left, and `texts`."""
    commit: str | None

    def sequence(self, cameras: int) -> Sequence:
        """Return what is read of so many cameras."""
        before, opening, closing, after = self.texts
        ids = list(before)
        images: list[range] = []
        for _ in range(cameras):
            ids += opening
            images.append(range(len(ids), len(ids) + self.side**2))
            ids += [self.image_id] * self.side**2 + closing
        return Sequence(ids + after, images, images[-1].stop)


def load_vlm(
    name: str, revision: str, *, layer: int, prompt: str, image_size: int | Literal["auto"]
) -> VlmCheckpoint:
    """Load a model.

    Args:
        name: a directory or a Hub id; tried in this order, and without a word with the Hub where it is here.
        revision: branch, tag or commit on the Hub.
        layer: layers of the language model that are kept; 0 is half of them.
        prompt: what stands after the images.
        image_size: height and width [pixel]; `auto` is the model's own.

    Raises:
        EncoderError: it cannot be reached, is of no known kind, or has not so many layers.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    where: dict[str, Any] = {"revision": revision, "local_files_only": True}
    try:
        try:
            config = AutoConfig.from_pretrained(name, **where)
        except HUB_ERRORS:
            if Path(name).is_dir():
                raise
            require_on_hub(name, revision)
            where["local_files_only"] = False
            config = AutoConfig.from_pretrained(name, **where)
        kind = KINDS.get(config.model_type)
        if kind is None:
            raise EncoderError(
                f"{name} is a checkpoint of {config.model_type}; encoder 'vlm' reads {', '.join(KINDS)}"
            )
        model, report = AutoModel.from_pretrained(
            name, dtype="auto", use_safetensors=True, output_loading_info=True, **where
        )
    except EncoderError:
        raise
    except Exception as error:  # transformers, its validators and safetensors have errors of their own kinds
        raise EncoderError(f"{name} is no VLM checkpoint that can be read: {first_line(error)}") from error
    if lacks := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise EncoderError(f"{name} lacks {len(lacks)} tensors of a {config.model_type}, such as {lacks[0]}")
    kept = _cut_off(name, getattr(model, kind.language), layer)
    tokenizer = load_tokenizer(name, revision)
    texts = [
        list(tokenizer(text.replace("{prompt}", prompt), add_special_tokens=False)["input_ids"])
        if text
        else []
        for text in (kind.before, kind.open, kind.close, kind.after)
    ]
    preprocessing = _preprocessing(name, where, kind, config, image_size)
    return VlmCheckpoint(
        model=model,
        kind=kind,
        layer=kept,
        side=preprocessing.image_size[0] // kind.cell(config),
        width=int(config.get_text_config().hidden_size),
        preprocessing=preprocessing,
        texts=(texts[0], texts[1], texts[2], texts[3]),
        image_id=int(config.image_token_id),
        sha256=hashlib.sha256(f"{hash_of(model)}{texts}".encode()).hexdigest(),
        commit=getattr(config, "_commit_hash", None),
    )


def _cut_off(name: str, language: Any, layer: int) -> int:
    """Leave the first layers, and the norm of the last one only where that is kept; return how many."""
    depth = len(language.layers)
    kept = layer or (depth + 1) // 2
    if kept > depth:
        raise EncoderError(f"{name} has {depth} layers, and encoder.layer is {layer}")
    if kept < depth:
        language.layers, language.norm = language.layers[:kept], nn.Identity()
        language.config.num_hidden_layers = kept
    return kept


def _preprocessing(
    name: str, where: dict[str, Any], kind: VlmKind, config: Any, image_size: int | Literal["auto"]
) -> Preprocessing:
    """Say how images are prepared: squashed, with the checkpoint's own mean and spread."""
    own, cell = kind.size(config), kind.cell(config)
    size = image_size if image_size != "auto" else own or ANY_SIZE
    if size != own if own is not None else size % cell:
        right = f"its own, {own}" if own is not None else f"a multiple of {cell}"
        raise EncoderError(f"{name} takes no images of {size} x {size}; set encoder.image_size to {right}")
    found: dict[str, Any] = {}
    for file in (FLAT, NESTED):
        path = cached_file(
            name,
            file,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **where,
        )
        table = read_config(Path(path)) if path else {}
        found |= table.get("image_processor", table)
    return Preprocessing(
        image_size=(size, size),
        mean=found.get("image_mean", kind.mean),
        std=found.get("image_std", kind.std),
    )
