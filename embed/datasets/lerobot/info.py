"""Read `meta/info.json` of a LeRobotDataset: versions, features, fps, path templates.

What vla does not need is not looked at, so that a dataset with unusual extras opens all the same.
"""

import math
from typing import Annotated

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
ONLY_IMAGE = "observation.image"
"""How lerobot calls the image of an environment with one camera; its camera is `image`."""


class Feature(BaseModel):
    """One column."""

    model_config = ConfigDict(frozen=True, strict=True)
    dtype: str
    """image, video, or the name of a number type."""
    shape: tuple[int, ...] | None = None


class LeRobotInfo(BaseModel):
    """The part of `info.json` that readers need."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)
    codebase_version: str
    fps: Annotated[float, Field(gt=0, le=1000)]
    features: dict[str, Feature]
    data_path: str
    video_path: str | None = None
    chunks_size: Annotated[int, Field(ge=1)] = 1000

    def choose_cameras(self, dataset: str, wanted: tuple[str, ...]) -> dict[str, str]:
        """Map camera names to feature keys, in the order asked for; none takes all.

        Raises:
            DatasetError: there is no such camera, or none at all.
        """
        keys = [key for key, feature in self.features.items() if feature.dtype in ("image", "video")]
        stored = {key.removeprefix(IMAGE_PREFIX): key for key in keys}
        if ONLY_IMAGE in stored and "image" not in stored:
            stored = {"image" if name == ONLY_IMAGE else name: key for name, key in stored.items()}
        if not stored:
            raise DatasetError(f"{dataset} has no image or video features; nothing to embed")
        for camera in wanted:
            if camera not in stored:
                raise DatasetError(f"{dataset} has no camera '{camera}'; its cameras: {', '.join(stored)}")
        return {camera: stored[camera] for camera in wanted or stored}

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
        info = LeRobotInfo.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise DatasetError(f"{path}: {one_line(error, LeRobotInfo)}") from error
    if info.codebase_version not in VERSIONS:
        raise DatasetError(
            f"{path} is a LeRobotDataset {info.codebase_version[:20]}; vla reads {', '.join(VERSIONS)}; "
            "convert it with the lerobot that wrote it"
        )
    if config.fps is not None and config.fps != info.fps:
        raise DatasetError(
            f"{path} says {info.fps:g} frames a second, the configuration {config.fps:g}; remove dataset.fps"
        )
    return info


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe a file that is not of the right form, in a line that shows little of what it holds."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return f"is not JSON ({first['msg']})"
    return explain(error, model)[:300]
