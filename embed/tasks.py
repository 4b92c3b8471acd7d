"""The task texts of a cache through the text tower, once each."""

from vla.base.errors import DatasetError
from vla.cache import CacheWriter, Texts
from vla.cache.texts import FILES, texts_damage, write_texts
from vla.embed.encoders.encoder import EncoderConfig


def embed_tasks(encoder: EncoderConfig, writer: CacheWriter) -> Texts:
    """Write the features of a cache's task texts, unless the same text tower has written them before.

    Args:
        encoder: the checkpoint of the cache; its text tower is used.
        writer: of the cache, which need not be finished.

    Returns:
        What `cache.json` shall say of them.

    Raises:
        DatasetError: no episode has a task text.
        EncoderError: the checkpoint has no text tower or no tokeniser.
    """
    from vla.embed.encoders.text import FrozenTextEncoder

    spec, path = writer.spec, writer.folder / FILES[2]
    tasks = tuple(dict.fromkeys(episode.task for episode in spec.episodes))
    if not any(tasks):
        raise DatasetError(f"no episode of {spec.dataset.path} has a task text; leave --language out")
    tower, finished = FrozenTextEncoder.load(encoder), writer.finished()
    there = finished.texts if finished else None
    if there and there.encoder == tower.identity and texts_damage(path, there) is None:
        return there
    return write_texts(path, tower.identity, tasks, tower.encode(tasks))
