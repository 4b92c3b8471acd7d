"""Where the numbers of a stream are in LeRobot's tables: a column, a slice of one, or several joined.

    observation.state            a column
    observation.state[0:7]       some of its values
    left_arm                     a name that meta/modality.json gives to such a slice (GR00T's dialect)
    action,base_action           one after the other

modality.json   {"state": {"left_arm": {"start": 0, "end": 7, "original_key": "observation.state"}, ...},
                 "action": {...}, "video": {"ego": {"original_key": "observation.images.ego_view"}}}
                 `original_key` may be missing: state and action are then slices of those columns
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vla.base.errors import DatasetError, nearest
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.lerobot.info import IMAGE_PREFIX, LeRobotInfo, one_line
from vla.embed.datasets.lerobot.tables import RowBlock

MODALITY = "meta/modality.json"
MAX_BYTES = 1 << 20
SLICE = re.compile(r"(.+)\[(\d{1,6}):(\d{1,6})\]", re.ASCII)
COLUMNS = {"state": "observation.state", "action": "action"}
Index = Annotated[int, Field(ge=0)]


class Entry(BaseModel):
    """A slice of a column, by GR00T."""

    model_config = ConfigDict(frozen=True, strict=True)
    start: Index = 0
    end: Index | None = None
    original_key: str | None = None


class Video(BaseModel):
    """A camera, by GR00T."""

    original_key: str | None = None


class Modality(BaseModel):
    """`meta/modality.json`; what vla does not need is not looked at."""

    model_config = ConfigDict(frozen=True)
    state: dict[str, Entry] = Field(default_factory=dict)
    action: dict[str, Entry] = Field(default_factory=dict)
    video: dict[str, Video] = Field(default_factory=dict)

    @property
    def cameras(self) -> list[str]:
        """The keys of its cameras."""
        return [entry.original_key or f"{IMAGE_PREFIX}{name}" for name, entry in self.video.items()]


@dataclass(frozen=True)
class Part:
    """Some values of a column."""

    column: str
    shape: tuple[int, ...]
    """Of the whole column's frame."""
    start: int
    stop: int
    """Along its only axis; a column of several is taken whole."""

    def read(self, block: RowBlock, dataset: str) -> np.ndarray:
        """Return the values in some rows, float32 [n, *shape]."""
        values = block.numbers(self.column, self.shape, dataset)
        return values if len(self.shape) > 1 else values[:, self.start : self.stop]


@dataclass(frozen=True)
class Columns:
    """What a stream's numbers are made of, one part after the other."""

    parts: tuple[Part, ...]

    @property
    def names(self) -> list[str]:
        return [part.column for part in self.parts]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one frame."""
        if len(self.parts) == 1 and len(self.parts[0].shape) > 1:
            return self.parts[0].shape
        return (sum(part.stop - part.start for part in self.parts),)

    def read(self, block: RowBlock, dataset: str) -> np.ndarray:
        """Return the stream in some rows, float32 [n, *shape]."""
        return np.concatenate([part.read(block, dataset) for part in self.parts], axis=1)


def read_modality(folder: DatasetFolder) -> Modality:
    """Read `meta/modality.json`; empty where there is none.

    Raises:
        DatasetError: it is not of the right form.
    """
    if not folder.has(MODALITY):
        return Modality()
    path = folder.file(MODALITY)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{path} has more than {MAX_BYTES >> 20} MiB; it describes no robot")
        return Modality.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise DatasetError(f"{path}: {one_line(error, Modality)}") from error


def default_key(kind: Literal["state", "action"], info: LeRobotInfo, modality: Modality) -> str:
    """Return the key of state or action where none is named: LeRobot's column, else all that GR00T lists."""
    entries: Mapping[str, Entry] = getattr(modality, kind)
    return COLUMNS[kind] if COLUMNS[kind] in info.features or not entries else ",".join(entries)


def find_columns(
    dataset: str, key: str, kind: Literal["state", "action"] | None, info: LeRobotInfo, modality: Modality
) -> Columns:
    """Find what a key names.

    Args:
        dataset: its name, for messages.
        key: columns, slices or names of GR00T's, with commas between them.
        kind: state or action, whose names of GR00T's are known; None for sensors.
        info: the dataset's features.
        modality: GR00T's names.

    Raises:
        DatasetError: there is no such thing, or a slice ends beyond its column.
    """
    return Columns(tuple(_find(dataset, name, kind, info, modality) for name in key.split(",")))


def _find(
    dataset: str, name: str, kind: Literal["state", "action"] | None, info: LeRobotInfo, modality: Modality
) -> Part:
    entries: Mapping[str, Entry] = getattr(modality, kind) if kind else {}
    column, start, stop = name, 0, None
    if name not in info.features:
        if name in entries and kind:
            entry = entries[name]
            column, start, stop = entry.original_key or COLUMNS[kind], entry.start, entry.end
        elif match := SLICE.fullmatch(name):
            column, start, stop = match[1], int(match[2]), int(match[3])
        if column not in info.features:
            hint = nearest(column, [*info.features, *entries])
            raise DatasetError(f"{dataset} has no feature '{column}'; {hint}")
    shape = info.shape(dataset, column)
    if len(shape) == 1:
        stop = shape[0] if stop is None else stop
        if not start < stop <= shape[0]:
            raise DatasetError(
                f"{dataset}: '{name}' is {start} to {stop} of '{column}', which has {shape[0]} values"
            )
    elif name != column:
        raise DatasetError(
            f"{dataset}: '{name}' is a slice of '{column}', which has shape {list(shape)}; take it whole"
        )
    return Part(column, shape, start, stop or 0)
