"""The task texts of a cache through the text tower, once each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from vla.base.errors import DatasetError
from vla.base.progress import say
from vla.cache import TextIdentity, Texts
from vla.cache.texts import FILE, texts_damage, write_texts
from vla.embed.encoders.encoder import EncoderConfig


@dataclass(frozen=True)
class NewTexts:
    """Features of task texts that are written when the cache's episodes are."""

    encoder: TextIdentity
    tasks: tuple[str, ...]
    features: np.ndarray
    """float32 [tasks, dim]"""

    def write(self, folder: Path) -> Texts:
        """Write the file; return what `cache.json` shall say of it."""
        return write_texts(folder / FILE, self.encoder, self.tasks, self.features)


def embed_tasks(
    encoder: EncoderConfig, dataset: str, folder: Path, tasks: tuple[str, ...], there: Texts | None
) -> Texts | NewTexts:
    """Encode a cache's task texts, unless the same text encoder has done so before.

    Args:
        encoder: of the cache; the text encoder that it names, or the text tower of its checkpoint, is used.
        dataset: its name, for messages.
        folder: of the cache.
        tasks: the different texts in order of appearance.
        there: what the cache has until now.

    Raises:
        DatasetError: no episode has a task text.
        ConfigError, EncoderError: there is no such text encoder, or it has no tokeniser.
    """
    from vla.embed.text_encoders.text_encoder_family import of_encoder

    if not any(tasks):
        raise DatasetError(f"no episode of {dataset} has a task text; leave --language out")
    tower = of_encoder(encoder).load()
    same = there is not None and (there.encoder, there.tasks) == (tower.identity, tasks)
    if same and there is not None and texts_damage(folder / FILE, there) is None:
        return there
    return NewTexts(tower.identity, tasks, tower.encode(tasks))


def keep_texts(folder: Path, tasks: tuple[str, ...], there: Texts | None) -> Texts | NewTexts | None:
    """Keep the features that a cache has, for the texts that its episodes have now; nothing is encoded.

    Args:
        folder: of the cache.
        tasks: the different texts in order of appearance.
        there: what the cache has until now.

    Returns:
        None if there are none, or if one is missing.
    """
    if there is None or there.tasks == tasks:
        return there
    rows = {task: row for row, task in enumerate(there.tasks)}
    new = [task for task in tasks if task not in rows]
    if new or texts_damage(folder / FILE, there) is not None:
        say("the cache has no features of its task texts any more (there are others now); add --language")
        return None
    features = load((folder / FILE).read_bytes())["features"][[rows[task] for task in tasks]]
    return NewTexts(there.encoder, tasks, np.ascontiguousarray(features))
