"""Chunks of actions as few tokens: cosine transform, rounding, byte-pair encoding.

    chunk        float [T, A], each number within [-1, 1] over the demonstrations
       │ orthonormal DCT-II over T: slow changes first
    coefficients float [T, A]
       │ times `scale`, rounded: what is too small to matter is 0
    symbols      int [T * A], the slowest of all dimensions first
       │ byte-pair encoding: what often stands side by side is one token
    tokens       int [L], L <= T * A, then the end

FAST (arXiv 2501.09747, section V). The pairs are learned on the demonstrations by the library `tokenizers`,
and kept as a tensor, so that they are saved with the weights.
"""

import json
import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

END = 0
"""The token behind the last one."""
PAD = -1
"""What stands behind the end, in a batch of unequal lengths."""
FIRST_LETTER = 0x4E00
"""Symbols are letters to the library; from here on there are twenty thousand of one kind."""


class ActionTokens(nn.Module):
    """The code between chunks and tokens.

    Args:
        shape: (T, A), of a chunk.
        scale: steps to which a coefficient of 1 is rounded.
        vocabulary: most tokens: the end, one of each symbol, and learned pairs.

    Attributes:
        base: tokens that every vocabulary has: the end and one of each symbol.
        merges: [vocabulary - base, 2], what each learned token is made of; `PAD` where none was learned.
    """

    merges: Tensor
    cosines: Tensor

    def __init__(self, shape: tuple[int, int], scale: float, vocabulary: int) -> None:
        super().__init__()
        length = shape[0]
        self.shape, self.scale = shape, scale
        self.limit = math.ceil(scale * math.sqrt(length))  # an orthonormal row of |x| <= 1 sums to no more
        self.base = 2 * self.limit + 2
        self.register_buffer("merges", torch.full((max(0, vocabulary - self.base), 2), PAD))
        self.register_buffer("cosines", dct_matrix(length), persistent=False)

    def learn(self, blocks: Iterable[Float[Tensor, "n T A"]]) -> None:
        """Learn which symbols are often side by side.

        Args:
            blocks: chunks of the demonstrations.
        """
        from tokenizers import Tokenizer, models, trainers

        letters = [chr(FIRST_LETTER + symbol) for symbol in range(2 * self.limit + 1)]
        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=len(letters) + len(self.merges),
            initial_alphabet=letters,
            min_frequency=2,
            show_progress=False,
        )
        words = (self._word(row) for block in blocks for row in self.quantise(block).tolist())
        tokenizer.train_from_iterator(words, trainer)
        model = json.loads(tokenizer.to_str())["model"]
        token = {letter: 1 + symbol for symbol, letter in enumerate(letters)}
        self.merges.fill_(PAD)
        learned = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
        for row, (left, right) in enumerate(learned):
            token[left + right] = self.base + row
            self.merges[row] = torch.tensor([token[left], token[right]])
        self.__dict__.pop("_tokenizer", None)
        self.__dict__.pop("_symbols_of", None)

    def quantise(self, chunk: Float[Tensor, "B T A"]) -> Int64[Tensor, "B L"]:
        """Return the symbols of chunks, L = T * A, each from 0 to 2 * limit."""
        coefficients = torch.einsum("kt,bta->bka", self.cosines, chunk.float())
        rounded = (self.scale * coefficients).round().clamp(-self.limit, self.limit)
        return rounded.flatten(1).long() + self.limit

    def dequantise(self, symbols: Int64[Tensor, "B L"]) -> Float[Tensor, "B T A"]:
        """Return the chunks of symbols."""
        coefficients = (symbols - self.limit).unflatten(1, self.shape) / self.scale
        return torch.einsum("kt,bka->bta", self.cosines, coefficients)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def encode(self, chunk: Float[Tensor, "B T A"]) -> Int64[Tensor, "B M"]:
        """Return the tokens of chunks, the end behind each, `PAD` behind that."""
        words = [self._word(row) for row in self.quantise(chunk).tolist()]
        found = [[*encoded.ids, END] for encoded in self._tokenizer.encode_batch(words)]
        longest = max(map(len, found))
        padded = [ids + [PAD] * (longest - len(ids)) for ids in found]
        return torch.tensor(padded, device=chunk.device)

    def decode(self, tokens: Int64[Tensor, "B M"]) -> Float[Tensor, "B T A"]:
        """Return the chunks of tokens, up to the end.

        Drawn tokens may stand for fewer symbols than a chunk has, or for more: what is missing is 0, what is
        too much is dropped.
        """
        size = self.shape[0] * self.shape[1]
        rows = []
        for row in tokens.tolist():
            symbols: list[int] = []
            for token in row:
                if token in (END, PAD):
                    break
                symbols += self._symbols_of[token]
            rows.append((symbols + [self.limit] * size)[:size])
        return self.dequantise(torch.tensor(rows, device=tokens.device))

    @property
    def known(self) -> int:
        """How many tokens stand for something."""
        return len(self._symbols_of)

    @cached_property
    def _symbols_of(self) -> list[list[int]]:
        """The symbols of each token."""
        found: list[list[int]] = [[], *([symbol] for symbol in range(2 * self.limit + 1))]
        for left, right in self._learned():
            found.append(found[left] + found[right])
        return found

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer, models

        names = [self._word(symbols) for symbols in self._symbols_of]
        vocabulary = {name: token for token, name in enumerate(names) if name}
        pairs = [(names[left], names[right]) for left, right in self._learned()]
        return Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))

    def _learned(self) -> list[list[int]]:
        return [pair for pair in self.merges.tolist() if PAD not in pair]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.__dict__.pop("_tokenizer", None)
        self.__dict__.pop("_symbols_of", None)

    def _word(self, symbols: Iterable[int]) -> str:
        return "".join(chr(FIRST_LETTER + symbol) for symbol in symbols)


def dct_matrix(length: int) -> Float[Tensor, "T T"]:
    """Return the orthonormal DCT-II: one frequency a row, the slowest first."""
    frequency, instant = torch.arange(length)[:, None], torch.arange(length)[None]
    cosines = torch.cos(math.pi / length * (instant + 0.5) * frequency) * math.sqrt(2 / length)
    cosines[0] /= math.sqrt(2)
    return cosines
