"""`language.safetensors`: what a text tower said of each different task text of a cache.

    features  float32 [tasks, dim]   row k belongs to `language.tasks[k]` of cache.json

A cache has it only where it was asked for. It is one small file beside the shards, and is made, read and
checked by itself: whoever trains without language never opens it.
"""

import shlex
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from vla.base.errors import CacheError
from vla.base.files import sha256_bytes, write_atomically
from vla.cache.metadata import CacheMetadata, Language, TextIdentity
from vla.cache.shard import repair_command

FILE = "language.safetensors"


def write_language(
    folder: Path, encoder: TextIdentity, tasks: tuple[str, ...], features: Float32[np.ndarray, "tasks dim"]
) -> Language:
    """Write the features of task texts; return what `cache.json` shall say of them.

    Raises:
        CacheError: a feature is NaN or infinite; nothing is written.
    """
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise CacheError(f"the feature of the task text {tasks[int(bad.argmax())]!r:.80} is not finite")
    data = save({"features": features})
    write_atomically(folder / FILE, data)
    return Language(encoder=encoder, tasks=tasks, sha256=sha256_bytes(data))


def read_language(folder: Path, metadata: CacheMetadata) -> Float32[Tensor, "tasks dim"]:
    """Read and check the features of a cache's task texts.

    Raises:
        CacheError: the cache has none, or they are not those that were written.
    """
    if metadata.language is None:
        raise CacheError(
            f"{folder} has no features of its task texts; add them, no image is encoded again: "
            f"{language_command(folder)}"
        )
    wrong = language_damage(folder, metadata.language)
    if wrong is not None:
        raise CacheError(
            f"{folder / FILE} {wrong}; make it again, no image is encoded: {language_command(folder)}"
        )
    return torch.from_numpy(load((folder / FILE).read_bytes())["features"])


def language_damage(folder: Path, language: Language) -> str | None:
    """Say what is wrong with the file; None if nothing is."""
    try:
        data = (folder / FILE).read_bytes()
        if sha256_bytes(data) != language.sha256:
            return "has other bytes than cache.json promises (sha256 differs)"
        features = load(data).get("features")
    except (OSError, SafetensorError, ValueError) as error:
        return f"cannot be read ({error})"
    due = (len(language.tasks), language.encoder.feature_dim)
    if features is None or features.dtype != np.float32 or features.shape != due:
        return f"does not hold 'features' as float32 {list(due)}"
    return None if np.isfinite(features).all() else "has a value that is not finite"


def language_command(folder: Path) -> str:
    """Return the command that adds the features, or makes them again."""
    return shlex.join([*shlex.split(repair_command(folder)), "--language"])
