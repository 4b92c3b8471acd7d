"""Does a cache's manifest agree with itself? It may be exchanged, edited, or made up."""

from collections.abc import Iterator

import numpy as np

from vla.cache.metadata import CacheMetadata, content_sha256_of, fingerprint_of, recipe_of
from vla.cache.shard import POSITIONS
from vla.cache.stream import ACTION


def header_problems(metadata: CacheMetadata) -> Iterator[str]:
    """Say in words where a manifest contradicts itself, whatever its format."""
    if metadata.format_version >= 3:
        yield from _name_problems(metadata)
    yield from _episode_problems(metadata)
    if metadata.texts is not None and metadata.texts.tasks != metadata.tasks:
        yield "has features of other task texts than its episodes have"
    yield from _stream_problems(metadata)


def _name_problems(metadata: CacheMetadata) -> Iterator[str]:
    recipe = recipe_of(metadata.dataset, metadata.streams, metadata.augmentation)
    if metadata.recipe != recipe:
        yield f"has recipe {metadata.recipe}, what it says of itself gives {recipe}"
    table = metadata.episodes
    content = content_sha256_of(table)
    if metadata.dataset.content_sha256 != content:
        yield "has another content than its episodes have"
    due = fingerprint_of(recipe, content)
    if metadata.fingerprint != due:
        yield f"has fingerprint {metadata.fingerprint}, what it says of itself gives {due}"


def _episode_problems(metadata: CacheMetadata) -> Iterator[str]:
    table, parts = metadata.episodes, metadata.parts
    if len(np.unique(table.number)) != len(table) or table.number.min() < 0:
        yield "has two episodes of the same number"
    if len({part.id for part in parts}) != len(parts):
        yield "has two parts of the same name"
    outside = (table.part < 0) | (table.part >= len(parts)) | (table.length < 1)
    if outside.any():
        yield f"has no part or no frames for episode {table.number[outside][0]}"
        return
    frames = np.array([part.frames for part in parts], np.int64)[table.part]
    outside = (table.first_row < 0) | (table.first_row + table.length > frames)
    if outside.any():
        part = parts[table.part[outside][0]]
        yield f"has episode {table.number[outside][0]} end behind the {part.frames} frames of part {part.id}"


def _stream_problems(metadata: CacheMetadata) -> Iterator[str]:
    names = [stream.name for stream in metadata.streams]
    if len(set(names)) != len(names) or set(names) & set(POSITIONS):
        yield "has two streams of the same name"
        return
    if ACTION not in names:
        yield f"has no stream '{ACTION}'"
        return
    for digest, encoder in metadata.encoders.items():
        if encoder.digest != digest:
            yield f"calls an encoder {digest} that is {encoder.digest}"
    if {stream.made_by for stream in metadata.streams} - {None} != metadata.encoders.keys():
        yield "has streams of other encoders than it names"
    if metadata.statistics.keys() != set(names):
        yield "has statistics of other streams than it has"
        return
    for stream in metadata.streams:
        for key, values in metadata.statistics[stream.name].model_dump(exclude={"count"}).items():
            if values is not None and len(values) != stream.channels:
                yield (f"has {len(values)} values in statistics.{stream.name}.{key}, not {stream.channels}")
                return
