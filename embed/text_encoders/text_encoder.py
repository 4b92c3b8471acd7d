"""What stage one and the live policy ask of a text encoder: a task in words in, one feature vector out.

Texts are few, so they are encoded on the CPU, one at a time, and each different text once.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils import cached_file

from vla.base.errors import EncoderError
from vla.base.hub import HUB_ERRORS, HUB_ID, first_line
from vla.base.progress import Progress
from vla.base.strict import StrictModel
from vla.cache.metadata import TextIdentity
from vla.embed.encoders.checkpoint import require_on_hub

PROBE = "Pick up the RED cube, then hand it over: 2 cm higher!"
"""Its tokens are part of the identity: two tokenisers with one vocabulary may still cut differently."""
TOWER_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError)
"""What transformers raises depends on what is wrong with the files."""
TOKENIZER_ERRORS: tuple[type[Exception], ...] = (*HUB_ERRORS, *TOWER_ERRORS)
MAX_KNOWN = 65_536
"""Texts whose features are kept, 200 MB of them; a served policy may be sent any number."""


class TextEncoder(ABC):
    """A frozen function of one text; features that were computed are remembered.

    Attributes:
        identity: what it is called in caches and policies.
    """

    identity: TextIdentity

    def __init__(self) -> None:
        self._known: dict[str, np.ndarray] = {}

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
                self._known[text] = self.encode_one(text).float().numpy()
                progress.update()
        return np.stack([self._known[text] for text in texts])

    @abstractmethod
    def encode_one(self, text: str) -> Tensor:
        """Return the feature of a text, [dim]."""


class TextEncoderConfig(StrictModel, ABC):
    """Which text encoder."""

    model_types: ClassVar[tuple[str, ...]] = ()
    """What a checkpoint's config.json calls itself for this member to be chosen by a directory."""
    hub_names: ClassVar[tuple[str, ...]] = ()
    """Beginnings of Hub ids for which it is chosen."""

    type: str
    id: str
    """Hub id or local directory."""
    revision: str = "main"
    """Branch, tag or commit on the Hub; meaningless for directories."""

    @abstractmethod
    def load(self) -> TextEncoder:
        """Load it.

        Raises:
            EncoderError: its weights or its tokeniser cannot be reached, or are not what they should be.
        """


def hash_of_tower(architecture: object, tokenizer: Any, probe: list[int], tensors: dict[str, Tensor]) -> str:
    """Hash an architecture, what a tokeniser does, and tensors in float32.

    Args:
        architecture: as JSON takes it.
        tokenizer: its vocabulary counts.
        probe: the tokens of `PROBE`.
        tensors: by names that no version of transformers changes.
    """
    digest = hashlib.sha256()
    vocabulary = sorted(tokenizer.get_vocab().items())
    digest.update(json.dumps([architecture, vocabulary, probe], sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_tokenizer(name: str, revision: str) -> Any:
    """Load the tokeniser of a checkpoint; from the Hub, if it is not on this machine.

    Raises:
        EncoderError: there is none, it cannot be read, or it cannot be reached.
    """
    missing = f"{name} has no tokeniser beside its weights (tokenizer.json and tokenizer_config.json)"
    # Looked for first: without it transformers imports all its models to say so, which takes seconds.
    local = is_here(name, "tokenizer_config.json", revision)
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


def is_here(name: str, file: str, revision: str) -> bool:
    """Tell whether a file of a checkpoint is on this machine, in a directory or downloaded."""
    if not Path(name).is_dir() and HUB_ID.fullmatch(name) is None:  # a directory that is gone
        return False
    found: Callable[..., str | None] = cached_file
    return None is not found(
        name,
        file,
        revision=revision,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
