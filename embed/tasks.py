"""The task texts of a cache through the text tower, once each."""

from vla.base.errors import DatasetError
from vla.cache import CacheWriter, Language
from vla.cache.texts import language_damage, write_language
from vla.embed.encoders.encoder_config import EncoderConfig
from vla.embed.encoders.text import FrozenTextEncoder


def embed_tasks(encoder: EncoderConfig, writer: CacheWriter) -> Language:
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
    spec = writer.spec
    tasks = tuple(dict.fromkeys(episode.task for episode in spec.episodes))
    if not any(tasks):
        raise DatasetError(f"no episode of {spec.dataset.path} has a task text; leave --language out")
    texts, finished = FrozenTextEncoder.load(encoder), writer.finished()
    there = finished.language if finished else None
    if there and there.encoder == texts.identity and language_damage(writer.folder, there) is None:
        return there
    return write_language(writer.folder, texts.identity, tasks, texts.encode(tasks))
