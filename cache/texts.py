"""`texts.safetensors`: what a text tower said of each different task text of a cache.

    features  float32 [tasks, dim]   row k belongs to `texts.tasks[k]` of cache.json

A cache has it only where it was asked for. It is one small file beside the shards, and is made, read and
checked by itself: whoever trains without it never opens it. In format 1 it was `language.safetensors`.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from vla.base.errors import CacheError
from vla.base.files import sha256_bytes, write_atomically
from vla.cache.metadata import CacheMetadata, TextIdentity, Texts

FILE = "texts.safetensors"
FILES = {1: "language.safetensors", 2: FILE, 3: FILE}
"""By format version of the cache."""


def write_texts(
    path: Path, encoder: TextIdentity, tasks: tuple[str, ...], features: Float32[np.ndarray, "tasks dim"]
) -> Texts:
    """Write the features of task texts; return what `cache.json` shall say of them.

    Raises:
        CacheError: a feature is NaN or infinite; nothing is written.
    """
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise CacheError(f"the feature of the task text {tasks[int(bad.argmax())]!r:.80} is not finite")
    data = save({"features": features})
    write_atomically(path, data)
    return Texts(encoder=encoder, tasks=tasks, sha256=sha256_bytes(data))


def read_texts(folder: Path, metadata: CacheMetadata) -> Float32[Tensor, "tasks dim"]:
    """Read and check the features of a cache's task texts.

    Raises:
        CacheError: the cache has none, or they are not those that were written.
    """
    path = folder / FILES[metadata.format_version]
    if metadata.texts is None:
        raise CacheError(f"{folder} has no features of its task texts", folder=folder, remedy="texts")
    wrong = texts_damage(path, metadata.texts)
    if wrong is not None:
        raise CacheError(f"{path} {wrong}", folder=folder, remedy="texts")
    return torch.from_numpy(load(path.read_bytes())["features"])


def texts_damage(path: Path, texts: Texts) -> str | None:
    """Say what is wrong with the file; None if nothing is."""
    try:
        data = path.read_bytes()
        if sha256_bytes(data) != texts.sha256:
            return "has other bytes than cache.json promises (sha256 differs)"
        features = load(data).get("features")
    except (OSError, SafetensorError, ValueError) as error:
        return f"cannot be read ({error})"
    due = (len(texts.tasks), texts.encoder.feature_dim)
    if features is None or features.dtype != np.float32 or features.shape != due:
        return f"does not hold 'features' as float32 {list(due)}"
    return None if np.isfinite(features).all() else "has a value that is not finite"
