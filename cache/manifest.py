"""`cache.json` and its table of episodes, format 3: writing and reading.

    cache.json                     one JSON object, of one size for ten episodes and for ten million; where
                                   tasks change within episodes, it lists where they do
    episodes-<12 digits>.parquet   a row an episode: index, length, task, content, part, first_row

The table's name follows from its bytes: the switch to another list of episodes is one rename, that of
`cache.json`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from vla.base.errors import CacheError
from vla.base.files import sha256_bytes, sha256_of, write_atomically, write_json
from vla.base.strict import StrictModel
from vla.cache.episodes import Count, Episode, Episodes
from vla.cache.frames import Frames, frame_runs
from vla.cache.metadata import (
    FORMAT_VERSION,
    Augmentation,
    CacheMetadata,
    DatasetIdentity,
    EncoderIdentity,
    Part,
    PositiveInt,
    Sha256,
    Statistics,
    Texts,
    content_sha256_of,
    fingerprint_of,
)
from vla.cache.part import PARTS, PartSpec, read_header
from vla.cache.statistics import Moments, has_moments, merged, moments_of, vector_statistics
from vla.cache.stream import Stream
from vla.cache.tables import read_table, table_bytes

Hex12 = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
COLUMNS = (
    ("index", "int32"),
    ("length", "int32"),
    ("task", "int32"),
    ("content", "digest"),
    ("part", "int32"),
    ("first_row", "int64"),
)


class Table(StrictModel):
    """A file beside `cache.json`."""

    file: Annotated[str, Field(pattern=r"^episodes-[0-9a-f]{12}\.parquet$")]
    sha256: Sha256


class PartEntry(StrictModel):
    """One part."""

    id: Hex12
    frames: PositiveInt
    episodes: PositiveInt
    frames_per_shard: PositiveInt


class Manifest(StrictModel):
    """The whole of `cache.json`."""

    format_version: Literal[3]
    recipe: Hex12
    fingerprint: Hex12
    dataset: DatasetIdentity
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    encoders: dict[str, EncoderIdentity]
    augmentation: Augmentation
    num_episodes: PositiveInt
    num_frames: PositiveInt
    episodes: Table
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    task_changes: tuple[tuple[Count, Count, Count], ...] = ()
    """Position of an episode, frame within it, row in `tasks` from there on."""
    parts: Annotated[tuple[PartEntry, ...], Field(min_length=1)]
    statistics: dict[str, Statistics]
    texts: Texts | None = None

    def metadata(self, folder: Path) -> CacheMetadata:
        """Read the table of episodes too.

        Raises:
            CacheError: it is missing, damaged or not what the manifest says; the message says what it is.
        """
        path = folder / self.episodes.file
        try:
            if sha256_of(path) != self.episodes.sha256:
                raise CacheError("has other bytes than cache.json promises (sha256 differs)")
        except OSError as error:
            raise CacheError(f"cannot be read ({error})") from error
        columns, _ = read_table(path, COLUMNS)
        if not np.isin(columns["task"], np.arange(len(self.tasks))).all():
            raise CacheError("has an episode whose task cache.json does not list")
        changes = np.array(self.task_changes, np.int64).reshape(-1, 3)
        self._check_changes(changes, columns["length"])
        episodes = Episodes(number=columns.pop("index"), tasks=self.tasks, changes=changes, **columns)
        if (len(episodes), episodes.num_frames) != (self.num_episodes, self.num_frames):
            raise CacheError(
                f"has {len(episodes)} episodes of {episodes.num_frames} frames together, cache.json says "
                f"{self.num_episodes} of {self.num_frames}"
            )
        kept = (
            "recipe",
            "fingerprint",
            "dataset",
            "streams",
            "encoders",
            "augmentation",
            "statistics",
            "texts",
        )
        return CacheMetadata(
            format_version=FORMAT_VERSION,
            episodes=episodes,
            parts=tuple(Part(folder=f"{PARTS}/{part.id}", **part.model_dump()) for part in self.parts),
            **{name: getattr(self, name) for name in kept},
        )

    def _check_changes(self, changes: np.ndarray, length: np.ndarray) -> None:
        position, frame, row = changes.T
        order = np.lexsort((frame, position))
        there = (position < len(length)) & (row < len(self.tasks)) & (frame > 0)
        if not there.all() or (frame >= length[position]).any() or (order != np.arange(len(order))).any():
            raise CacheError("has a change of task that is in no episode, or out of order")


def write_manifest(
    folder: Path,
    parts: Sequence[PartSpec],
    *,
    dataset: DatasetIdentity,
    encoders: Mapping[str, EncoderIdentity],
    augmentation: Augmentation,
    episodes: Sequence[Episode],
    contents: Sequence[bytes],
    texts: Texts | None,
) -> CacheMetadata:
    """Write down which episodes a cache has and in which of its finished parts they are.

    Args:
        folder: of the cache.
        parts: all are kept; the first that holds an episode is named.
        dataset: where they come from.
        encoders: by digests.
        augmentation: how variants were made.
        episodes: in the dataset's order.
        contents: their identities.
        texts: what `write_texts` returned; None for a cache without.
    """
    places: dict[bytes, tuple[int, int]] = {}
    for number, part in enumerate(parts):
        for content, first in zip(part.contents, part.firsts.tolist(), strict=True):
            places.setdefault(content, (number, first))
    where = [places[content] for content in contents]
    table = Episodes.of(
        episodes,
        contents=contents,
        part=[number for number, _ in where],
        first_row=[first for _, first in where],
    )
    sha256 = content_sha256_of(table)
    metadata = CacheMetadata(
        format_version=FORMAT_VERSION,
        recipe=parts[0].recipe,
        fingerprint=fingerprint_of(parts[0].recipe, sha256),
        dataset=dataset.model_copy(update={"content_sha256": sha256}),
        streams=parts[0].streams,
        encoders=dict(encoders),
        augmentation=augmentation,
        episodes=table,
        parts=tuple(part.part for part in parts),
        statistics={},
        texts=texts,
    )
    moments = []
    for part in parts:
        header = read_header(folder, part)
        if header is None:
            raise CacheError(f"part {part.id} of {folder} is not finished", folder=folder, remedy="finish")
        moments.append(header.moments)
    metadata = replace(metadata, statistics=listed_statistics(folder, metadata, moments))
    save_manifest(folder, metadata)
    return metadata


def save_manifest(folder: Path, metadata: CacheMetadata) -> None:
    """Write `cache.json` and its table; what is there already is not touched."""
    table = metadata.episodes
    columns = {"index": table.number} | {name: getattr(table, name) for name, _ in COLUMNS[1:]}
    data = table_bytes(columns)
    sha256 = sha256_bytes(data)
    path = folder / f"episodes-{sha256[:12]}.parquet"
    if not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)
    kept = ("format_version", "recipe", "fingerprint", "dataset", "streams", "encoders", "augmentation")
    manifest = Manifest(
        **{name: getattr(metadata, name) for name in (*kept, "statistics", "texts")},
        num_episodes=len(table),
        num_frames=table.num_frames,
        episodes=Table(file=path.name, sha256=sha256),
        tasks=table.tasks,
        task_changes=tuple(map(tuple, table.changes.tolist())),
        parts=tuple(
            PartEntry(id=p.id, frames=p.frames, episodes=p.episodes, frames_per_shard=p.frames_per_shard)
            for p in metadata.parts
        ),
    )
    said = manifest.model_dump(mode="json", exclude=None if metadata.texts else {"texts"})
    if _said(folder / "cache.json") != said:
        write_json(folder / "cache.json", said)
    remove_old_tables(folder)


def remove_old_tables(folder: Path) -> None:
    """Delete tables of episodes that `cache.json` does not name, which a kill may have left."""
    said = _said(folder / "cache.json")
    for path in folder.glob("episodes-*.parquet"):
        if path.name != said["episodes"]["file"]:
            path.unlink()


def _said(path: Path) -> Any:
    """Return the contents of `cache.json`; None if there are none that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def listed_statistics(
    folder: Path, metadata: CacheMetadata, moments: Sequence[Mapping[str, Moments]]
) -> dict[str, Statistics]:
    """Return the statistics of the listed episodes of all streams.

    A part whose episodes are all listed, once each, is known by its moments; frames are read of others.
    """
    frames, table = Frames(folder, metadata), metadata.episodes
    used = np.unique(table.part).tolist()
    whole = {}
    for number in used:
        rows = np.sort(table.first_row[table.part == number])
        whole[number] = len(rows) == metadata.parts[number].episodes and len(np.unique(rows)) == len(rows)

    def of(stream: Stream) -> Statistics:
        if not has_moments(stream):
            return vector_statistics([piece.numpy() for piece in frames.pieces(stream.name, frames.runs)])
        found = [
            moments[number][stream.name]
            if whole[number]
            else moments_of(
                stream,
                (p.numpy() for p in frames.pieces(stream.name, frame_runs(table, table.part == number))),
            )
            for number in used
        ]
        return merged(found).statistics()

    return {stream.name: of(stream) for stream in metadata.streams}
