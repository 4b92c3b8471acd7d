"""The pretrained language model of a policy: found by Hub id or directory, known by a hash.

It is in no checkpoint of ours where it is frozen, so a policy must be able to tell whether what lies under
that name today is what it was trained on. The hash is taken over the kind of model, its tensors and what its
tokeniser does, whatever files held them.

Imported only where such a policy is built: transformers takes seconds.
"""

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi, constants
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from vla.base.errors import ConfigError
from vla.base.hub import HUB_ERRORS, HUB_ID, TIMEOUT_S, first_line, refusal

PROBE = "Pick up the RED cube, then hand it over: 2 cm higher!"
"""Its tokens are part of the hash: two tokenisers with one vocabulary may still cut differently."""
HEADS = ("num_attention_heads", "num_key_value_heads")
"""What changes an answer and is seen in no tensor."""
LOADING_ERRORS: tuple[type[Exception], ...] = (*HUB_ERRORS, KeyError, TypeError, AttributeError)
"""What transformers raises depends on what is wrong with the files."""


@dataclass(frozen=True)
class BaseModel:
    """A causal language model without its output layer, and its tokeniser."""

    model: Any
    tokenizer: Any
    sha256: bytes
    """Of model and tokeniser; zeros where the model has no values, on the device `meta`."""


def load_base_model(name: str, revision: str, dtype: torch.dtype) -> BaseModel:
    """Load a language model; on torch's device `meta` only its shapes.

    Args:
        name: a directory or a Hub id; what is on this machine is loaded without a word with the Hub.
        revision: branch, tag or commit on the Hub.
        dtype: of its weights.

    Raises:
        ConfigError: it cannot be reached, or is not a causal language model of transformers with a tokeniser.
    """
    transformers.logging.set_verbosity_error()  # it lists the output layer as unexpected
    transformers.logging.disable_progress_bar()
    local = {"revision": revision, "local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(name, **local)
    except LOADING_ERRORS as error:
        if Path(name).is_dir():
            raise ConfigError(f"{name} holds no language model: {first_line(error)[:200]}") from error
        _require_on_hub(name, revision)
        local["local_files_only"] = False
        config = AutoConfig.from_pretrained(name, **local)
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigError(
            f"{name} is a {config.model_type}, not a causal language model of transformers; take one, such "
            "as Qwen/Qwen2.5-0.5B"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **local)
        if torch.get_default_device().type == "meta":
            return BaseModel(AutoModel.from_config(config, dtype=dtype), tokenizer, bytes(32))
        model, report = AutoModel.from_pretrained(
            name,
            dtype=dtype,
            use_safetensors=True,  # never a pickle
            output_loading_info=True,
            **local,
        )
    except LOADING_ERRORS as error:
        raise ConfigError(
            f"{name} cannot be loaded as a language model (config.json, model.safetensors and the "
            f"tokeniser's files): {first_line(error)[:200]}"
        ) from error
    if lacks := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise ConfigError(f"{name} lacks {len(lacks)} tensors of a {config.model_type}, such as {lacks[0]}")
    return BaseModel(model, tokenizer, _sha256(model, tokenizer))


def _require_on_hub(name: str, revision: str) -> None:
    """Ask the Hub once, with a short wait: transformers would retry for half a minute."""
    advice = (
        f"download it where there is a network (hf download {shlex.quote(name)}) and name the directory: "
        "--set policy.fusion.model=DIR"
    )
    if not HUB_ID.fullmatch(name):
        raise ConfigError(f"language model '{name}' is no directory here and no Hub id, owner/name")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"language model '{name}' is not on this machine and HF_HUB_OFFLINE is set; {advice}"
        )
    try:
        HfApi().model_info(name, revision=revision, timeout=TIMEOUT_S)
    except HUB_ERRORS as error:
        reason = refusal(error, "language model", name, revision) or (
            f"language model '{name}' is no directory, is not downloaded, and the Hub cannot be reached"
        )
        raise ConfigError(f"{reason}; {advice}") from error


def _sha256(model: nn.Module, tokenizer: Any) -> bytes:
    """Hash the tensors as they are loaded: of the same dtype they are the same from any file."""
    config: Any = model.config
    kind = [config.model_type, *(getattr(config, key, None) for key in HEADS)]
    vocabulary = sorted(tokenizer.get_vocab().items())
    digest = hashlib.sha256()
    digest.update(json.dumps([kind, vocabulary, tokenizer(PROBE)["input_ids"]]).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.digest()
