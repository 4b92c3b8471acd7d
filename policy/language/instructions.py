"""Instructions as token ids: each different text is cut once.

    ids  int64 [texts, tokens]    -1 after the end of a shorter text

n texts, L tokens of the longest.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from jaxtyping import Int64
from torch import Tensor

from vla.base.errors import ConfigError

PADDING: Final = -1
"""No token of any vocabulary; the mask is read off it, so that ids need no second array beside them."""
MAX_KNOWN = 65_536
"""Texts whose ids are kept; a served policy may be sent any number."""


class Instructions:
    """Cut texts into the tokens of a language model.

    Args:
        tokenizer: of transformers, called with a text.
        prompt: what the model reads, with the text in place of `{task}`.
        texts: those of the training; whatever is cut later has at least the length of their longest, so that
            batches of several caches have one.
    """

    def __init__(self, tokenizer: Any, prompt: str, texts: Sequence[str] = ()) -> None:
        self._tokenizer, self._prompt = tokenizer, prompt
        self._known: dict[str, list[int]] = {}
        self.length = max((len(self._cut(text)) for text in texts), default=0)

    def ids(self, texts: Sequence[str]) -> Int64[Tensor, "n L"]:
        """Return the ids of texts, padded on the right.

        Raises:
            ConfigError: one gives no token at all.
        """
        rows = [self._cut(text) for text in texts]
        padded = torch.full((len(rows), max([self.length, *map(len, rows)])), PADDING)
        for row, ids in zip(padded, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return padded

    def _cut(self, text: str) -> list[int]:
        if text not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = list(self._tokenizer(self._prompt.replace("{task}", text))["input_ids"])
            if not found:
                raise ConfigError(
                    f"the task text '{text:.80}' gives no token; set policy.fusion.prompt to more than "
                    "'{task}'"
                )
            self._known[text] = found
        return self._known[text]
