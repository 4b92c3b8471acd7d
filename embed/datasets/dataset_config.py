"""Which demonstrations to read, and how: table `[dataset]`."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from vla.base.errors import ConfigError
from vla.base.strict import StrictModel, explain
from vla.cache.stream import ACTION, STATE, TASK

if TYPE_CHECKING:
    from vla.cache import FeatureCache

RESERVED = (STATE, ACTION, TASK, "episode_index", "frame_index")
"""Names that a cache gives a meaning of its own; no camera or sensor may have one of them."""
DIMENSIONS = {"vector": 1, "points": 2, "series": 2, "tokens": 2, "depth": 3}
"""Axes of one frame, by kind."""
NONE = "none"
"""As a `state_key`: the policy sees no state."""


def names_of(key: str) -> tuple[str, ...]:
    """Return the columns that a key names: `a,b` are `a` and, behind it along the last axis, `b`."""
    return tuple(key.split(","))


def _one_text(names: object) -> object:
    """Join a list of columns as `Stream.key` has them."""
    if not isinstance(names, list | tuple):
        return names
    if not all(isinstance(name, str) and name and "," not in name for name in names):
        raise ValueError("a list of columns holds their names, none of which is empty or has a comma")
    return ",".join(names) or NONE


Columns = Annotated[str, BeforeValidator(_one_text)]
"""One column, or several as a list or with commas between them."""


class SensorConfig(StrictModel):
    """One sensor: a stream that is kept as the dataset holds it, in float32."""

    key: Annotated[str, Field(min_length=1)]
    """What the dataset calls it, such as `observation.lidar`."""
    kind: Literal["vector", "points", "series", "tokens", "depth"]
    """vector [dim], points [points, channels], series [time, channels], tokens [tokens, dim] or depth
    [height, width, 1]."""


class DatasetConfig(StrictModel):
    """The demonstrations; which formats there are is in docs/datasets.md."""

    path: str = "data/sim_transfer"
    """A LeRobotDataset, HDF5 episodes, a zarr replay buffer, or `owner/name` of a dataset on the Hub."""
    revision: str | None = None
    """Branch, tag or commit on the Hub. Without one the Hub is never asked; meaningless for directories."""
    cameras: tuple[str, ...] = ()
    """Cameras to embed, in this order; empty takes all, in the dataset's order."""
    streams: dict[str, SensorConfig] = Field(default_factory=dict)
    """Sensors to keep beside the cameras, by the name they get: `lidar = {key = "observation.lidar",
    kind = "points"}`."""
    state_key: Columns = ""
    """Empty takes the format's own, such as `observation.state` or, of ACT, `observations/qpos`. A list of
    columns is one after the other; `none` or an empty list leaves the state out."""
    action_key: Columns = ""
    """Empty takes the format's own: `action`, of robomimic `actions`. It may be a list too."""
    subset: str = ""
    """Episodes that robomimic files list under this name in `mask/`, such as `train`; empty takes all."""
    episodes: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Episodes to take, by the dataset's own numbers and in its order; empty takes all."""
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Frames a second. ACT's HDF5 and zarr do not say; where the dataset does, it must agree."""
    tolerance_s: Annotated[float, Field(gt=0)] = 1e-4
    """How far video frames may lie from frame number / fps [s]; the nearest is taken. LeRobot's default."""
    timestamp_tolerance_s: Annotated[float, Field(gt=0)] | None = None
    """How far the timestamps of rows may; they are only checked. Without it, as far as video frames."""
    align: Literal["time", "index"] = "time"
    """index: row k of an episode is the k-th frame of its video, whatever clocks say."""
    color: Literal["rgb", "bgr"] = "rgb"
    """Order of the colours in HDF5 and zarr. OpenCV swaps them where it is handed RGB; look at a frame."""

    @field_validator("streams")
    @classmethod
    def _names_are_free(cls, streams: dict[str, SensorConfig]) -> dict[str, SensorConfig]:
        for name in streams:
            if not name or name in RESERVED:
                raise ValueError(f"'{name}' names something else; call the sensor otherwise")
        return streams

    @field_validator("action_key")
    @classmethod
    def _there_is_an_action(cls, action_key: str) -> str:
        if action_key == NONE:
            raise ValueError("without actions there is nothing to learn; leave it out, or name the column")
        return action_key


def dataset_of(cache: "FeatureCache", named: str | None = None) -> DatasetConfig:
    """Return the configuration of a cache's dataset, to be opened as it was then.

    `cache.json` says what was read; how it was read, such as the order of colours, is in the settings beside
    it, which a cache made from Python may lack.

    Args:
        cache: the features.
        named: where the dataset lies, if not where it did.

    Raises:
        ConfigError: the settings cannot be read.
    """
    made, saved = cache.metadata, _saved(cache.folder / "pipeline.toml")
    dataset = made.dataset
    path = saved.path if "path" in saved.model_fields_set else dataset.path
    sensors = [s for s in made.streams if s.made_by is None and s.name not in (STATE, ACTION)]
    known = {STATE, ACTION, *(sensor.name for sensor in sensors)}
    return saved.model_copy(
        update={
            "path": named or path,
            "revision": None if named else dataset.revision,  # the commit, where the settings name a branch
            "cameras": tuple(name for name in dataset.keys if name not in known),
            "streams": {s.name: SensorConfig.model_validate({"key": s.key, "kind": s.kind}) for s in sensors},
            "state_key": dataset.keys.get(STATE, NONE),
            "action_key": dataset.keys.get(ACTION, ""),
            "episodes": dataset.episodes or (),
            "fps": dataset.fps,
        }
    )


def _saved(path: Path) -> DatasetConfig:
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text()) if path.is_file() else {}
        return DatasetConfig.model_validate(tables.get("dataset", {}))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, DatasetConfig, 'dataset')}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
