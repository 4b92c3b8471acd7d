"""What OpenVLA reads and writes besides patches: a prompt, and actions as tokens (arXiv 2406.09246, 3.2).

    edges   -1, …, 1        256 of them, evenly spaced
    number  k               how many edges are not above it: 1 … 256
    token   vocabulary - k  the last 256 words that the tokeniser has
    back    the middle between two edges; k = 256 is within the last interval too

Actions are in [-1, 1] before, by the 1 % and 99 % quantiles of their dataset.

K numbers of a chunk, L tokens of a prompt.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vla.base.errors import ConfigError

PROMPT = "In: What action should the robot take to {task}?\nOut:"
EMPTY = "▁"
"""The word without letters, 29871 in Llama 2: in training it stood between "Out:" and the first action."""


@dataclass(frozen=True)
class ActionTokens:
    """Numbers in [-1, 1] as tokens.

    Attributes:
        vocabulary: words of the tokeniser; the table of words may have more rows.
        bins: edges, and tokens.
    """

    vocabulary: int
    bins: int

    @property
    def first(self) -> int:
        """The lowest token that is an action, the largest number."""
        return self.vocabulary - self.bins

    def encode(self, numbers: Float[Tensor, "*batch"]) -> Int64[Tensor, "*batch"]:
        """Return tokens; what lies outside is -1 or 1."""
        edges = self._edges(numbers)
        return self.vocabulary - torch.bucketize(numbers.clamp(-1, 1), edges, right=True)

    def decode(self, tokens: Int64[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return the middles of intervals."""
        edges = self._edges(tokens)
        interval = (self.vocabulary - tokens - 1).clamp(0, self.bins - 2)
        return ((edges[:-1] + edges[1:]) / 2)[interval]

    def _edges(self, like: Tensor) -> Float[Tensor, "bins"]:
        return torch.linspace(-1, 1, self.bins, device=like.device)


class Prompt:
    """Turn a task text into the tokens of its prompt, without the <s> that comes before the patches.

    Args:
        path: of `tokenizer.json`.

    Raises:
        ConfigError: it cannot be read, or has no empty word.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises no kind of its own
            raise ConfigError(f"{path} is no tokeniser that can be read ({str(error)[:200]})") from None
        empty = self._tokenizer.token_to_id(EMPTY)
        if empty is None:
            raise ConfigError(f"{path} has no word '{EMPTY}': it is not the tokeniser of an OpenVLA")
        self._empty: int = empty

    def __call__(self, text: str) -> dict[str, Any]:
        """Return `input_ids`, as a tokeniser of transformers does."""
        ids = self._tokenizer.encode(PROMPT.format(task=text.lower()), add_special_tokens=False).ids
        return {"input_ids": ids if ids[-1] == self._empty else [*ids, self._empty]}
