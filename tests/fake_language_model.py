"""Small causal language models in the real architectures, with a tokeniser of a few words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaModel,
    Phi3Config,
    Phi3Model,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from vla.policy.agents.vla_agent import VLAAgentConfig

END = "<|endoftext|>"
WORDS = ("Pick", "Hand", "Ġthe", "Ġred", "Ġbox", "Ġit", "Ġover")
KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaModel),  # SmolLM2 too
    "phi3": (Phi3Config, Phi3Model),
    "qwen2": (Qwen2Config, Qwen2Model),
    "qwen3": (Qwen3Config, Qwen3Model),
}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 280,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "max_position_embeddings": 64,
}


def write_language_model(folder: Path, kind: str = "qwen2", seed: int = 0, **changes: Any) -> Path:
    """Write a checkpoint of one of `KINDS`."""
    config, model = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model(config(**{**SIZES, **changes})).save_pretrained(folder)
    return write_byte_pairs(folder)


def write_byte_pairs(folder: Path, words: Sequence[str] = WORDS) -> Path:
    """Write a tokeniser of bytes, as Qwen and SmolLM2 have it, in which some words are one token."""
    vocabulary = {END: 0} | {c: i + 1 for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in words:
        for end in range(1, len(word)):
            joined = word[: end + 1]
            if joined not in vocabulary:
                vocabulary[joined] = len(vocabulary)
                merges.append((word[:end], word[end]))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    fast.save_pretrained(folder)
    return folder


def reading(model: Path, **fusion: Any) -> VLAAgentConfig:
    """Return a small policy with a language model."""
    return VLAAgentConfig.model_validate(
        {
            "per_view_dim": 4,
            "cond_dim": 8,
            "n_emb": 16,
            "n_layer": 1,
            "n_head": 2,
            "fusion": {"type": "language_model", "model": str(model), "queries": 2, **fusion},
        }
    )
