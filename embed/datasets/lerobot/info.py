"""Read `meta/info.json` of a LeRobotDataset: versions, features, fps, path templates.

What vla does not need is not looked at, so that a dataset with unusual extras opens all the same.
"""

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vla.base.errors import DatasetError, nearest
from vla.base.strict import MAX_WIDTH, explain
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.folder import DatasetFolder, fill_template

INFO = "meta/info.json"
VERSIONS = ("v3.0", "v2.1", "v2.0")
MAX_INFO_BYTES = 16 << 20
IMAGE_PREFIX = "observation.images."
MAX_NUMBERS = 1 << 22
"""A frame of a sensor; a lidar has some 100,000 points."""
OBSERVATION = "observation."
"""lerobot calls the image of an environment with one camera `observation.image`; its camera is `image`."""


class Feature(BaseModel):
    """One column."""

    model_config = ConfigDict(frozen=True, strict=True)
    dtype: str
    """image, video, or the name of a number type."""
    shape: tuple[int, ...] | None = None
    info: Any = None
    """Of a video: codec, pixel format, whether it is a depth map."""
    video_info: Any = None
    """The same, by the name of before v2.0."""
    is_depth_map: Any = None


class LeRobotInfo(BaseModel):
    """The part of `info.json` that readers need."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)
    codebase_version: str
    fps: Annotated[float, Field(gt=0, le=1000)]
    features: dict[str, Feature]
    data_path: str
    video_path: str | None = None
    chunks_size: Annotated[int, Field(ge=1)] = 1000
    total_episodes: Any = None

    def choose_cameras(
        self, dataset: str, wanted: tuple[str, ...], depth: Collection[str] = (), listed: Collection[str] = ()
    ) -> dict[str, str]:
        """Map camera names to feature keys, in the order asked for; none takes all that show colours.

        Args:
            dataset: its name, for messages.
            wanted: names, or none.
            depth: keys of depth maps, which are no cameras.
            listed: keys to which `wanted` is limited where it is empty; none is no limit.

        Raises:
            DatasetError: there is no such camera, or none at all.
        """
        keys = [key for key, feature in self.features.items() if feature.dtype in ("image", "video")]
        stored = {key.removeprefix(IMAGE_PREFIX): key for key in keys if key.startswith(IMAGE_PREFIX)}
        for key in keys:
            if not key.startswith(IMAGE_PREFIX):
                short = key.removeprefix(OBSERVATION)
                stored[key if short in stored else short] = key
        stored = {
            name: key for key in keys for name in stored if stored[name] == key
        }  # in the dataset's order
        cameras = {name: key for name, key in stored.items() if key not in depth}
        if not cameras:
            found = f"only depth maps ({', '.join(stored)})" if stored else "no image or video features"
            raise DatasetError(f"{dataset} has {found}; nothing to embed")
        chosen = {}
        for name in wanted or [name for name, key in cameras.items() if key in listed] or cameras:
            named = name if name in keys else stored.get(name)
            if named is None:
                raise DatasetError(f"{dataset} has no camera '{name}'; its cameras: {', '.join(cameras)}")
            if named in depth:
                raise DatasetError(
                    f"{dataset}: '{name}' is a depth map, not a colour camera; keep it as a stream: "
                    f'--set \'dataset.streams.{name}={{key="{key}", kind="depth"}}\''
                )
            chosen[name] = named
        return chosen

    def depth_shape(self, dataset: str, key: str) -> tuple[int, ...]:
        """Return the shape of a depth map: height, width, 1.

        Raises:
            DatasetError: there is no such feature, or it is no image or does not say its size.
        """
        if key not in self.features:
            raise DatasetError(f"{dataset} has no feature '{key}'; {nearest(key, self.features)}")
        feature = self.features[key]
        shape = feature.shape or ()
        fits = len(shape) == 3 and shape[2] in (1, 3) and all(1 <= size <= MAX_WIDTH for size in shape[:2])
        if feature.dtype not in ("image", "video") or not fits:
            raise DatasetError(
                f"{dataset}: feature '{key}' ({feature.dtype[:20]}) has shape {shape}; a depth map is an "
                "image or video of shape [height, width, 1]"
            )
        return (*shape[:2], 1)

    def shape(self, dataset: str, key: str) -> tuple[int, ...]:
        """Return the shape of a feature of numbers, such as the state; one axis or two.

        Raises:
            DatasetError: there is no such feature, or it has another form.
        """
        if key not in self.features:
            raise DatasetError(f"{dataset} has no feature '{key}'; {nearest(key, self.features)}")
        feature = self.features[key]
        shape, no_number = feature.shape, feature.dtype in ("image", "video", "string")
        if no_number or not shape or len(shape) > 2 or not all(1 <= size <= MAX_WIDTH for size in shape):
            raise DatasetError(
                f"{dataset}: feature '{key}' ({feature.dtype[:20]}) has shape {shape}; vla takes vectors, "
                f"and of sensors [points, channels], of up to {MAX_WIDTH} each way"
            )
        if math.prod(shape) > MAX_NUMBERS:
            raise DatasetError(f"{dataset}: feature '{key}' claims {math.prod(shape)} numbers a frame")
        return shape

    def video_file(self, dataset: str, key: str, **place: int) -> str:
        """Return the name of a video, relative to the dataset.

        Raises:
            DatasetError: there is no template for it, or it does not fit.
        """
        if self.video_path is None:
            raise DatasetError(f"{dataset}: '{key}' is a video, but info.json has no video_path")
        return fill_template(self.video_path, {"video_key": key, **place})


def read_info(folder: DatasetFolder, config: DatasetConfig) -> LeRobotInfo:
    """Read and check `meta/info.json`.

    Raises:
        DatasetError: it is not JSON, not of the right form or of another version; or the configuration
            contradicts it.
    """
    path = folder.file(INFO)
    try:
        if path.stat().st_size > MAX_INFO_BYTES:
            raise DatasetError(f"{path} has more than {MAX_INFO_BYTES >> 20} MiB; it describes no dataset")
        data = path.read_bytes()
        _check_version(path, data)
        info = LeRobotInfo.model_validate_json(data)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise DatasetError(f"{path}: {one_line(error, LeRobotInfo)}") from error
    if config.fps is not None and config.fps != info.fps:
        raise DatasetError(
            f"{path} says {info.fps:g} frames a second, the configuration {config.fps:g}; remove dataset.fps"
        )
    return info


def _check_version(path: Path, data: bytes) -> None:
    """Name another version before its other form is complained of.

    Raises:
        DatasetError: it is one.
    """
    try:
        said = json.loads(data)
        version = said.get("codebase_version") if isinstance(said, dict) else None
    except (ValueError, RecursionError):  # said better by the caller
        return
    if isinstance(version, str) and version not in VERSIONS:
        raise DatasetError(
            f"{path} is a LeRobotDataset {version[:20]}; vla reads {', '.join(VERSIONS)}; convert it by the "
            "scripts of lerobot: to v2.0 and v2.1 by those of 0.3, to v3.0 by those of 0.4"
        )


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe a file that is not of the right form, in a line that shows little of what it holds."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return f"is not JSON ({first['msg']})"
    return explain(error, model)[:300]
