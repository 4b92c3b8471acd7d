"""Tell depth maps from colour cameras: by what info.json says of them, and by their first frame.

Depth is no colour: 12 or 16 bits of distance, which an encoder of photographs would see as grey nonsense. It
is left out unless it is named as a stream of kind `depth`, and is then kept as the dataset has it.
"""

import io
from typing import Any

import av
from PIL import Image

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder, fill_template
from vla.embed.datasets.images import DEPTH_MODES, FrameError, stored_image
from vla.embed.datasets.lerobot.info import Feature, LeRobotInfo
from vla.embed.datasets.lerobot.tables import RowBlock, Rows, scan
from vla.embed.datasets.video import DEPTH_FORMATS

FIRST = {"chunk_index": 0, "file_index": 0, "episode_chunk": 0, "episode_index": 0}


def depth_cameras(folder: DatasetFolder, info: LeRobotInfo) -> set[str]:
    """Return the keys of images and videos that are depth maps."""
    return {
        key
        for key, feature in info.features.items()
        if feature.dtype in ("image", "video")
        and (_says_depth(feature) or _shows_depth(folder, info, key, feature))
    }


def _says_depth(feature: Feature) -> bool:
    told: dict[str, Any] = {}
    for table in (feature.video_info, feature.info):
        told |= table if isinstance(table, dict) else {}
    flags = (feature.is_depth_map, told.get("is_depth_map"), told.get("video.is_depth_map"))
    return any(flag is True for flag in flags) or told.get("video.pix_fmt") in DEPTH_FORMATS


def _shows_depth(folder: DatasetFolder, info: LeRobotInfo, key: str, feature: Feature) -> bool:
    """Look at the first file, if it is there; what is wrong with it is found where it is read."""
    try:
        if feature.dtype == "video":
            name = fill_template(info.video_path or "", {"video_key": key, **FIRST})
            if not folder.has(name):
                return False
            with av.open(str(folder.file(name)), format="mp4") as container:
                return container.streams.video[0].codec_context.pix_fmt in DEPTH_FORMATS
        name = fill_template(info.data_path, FIRST)
        if not folder.has(name):
            return False
        (table,) = scan(folder, Rows(name, None, 0, 1), [key], 1)
        (cell,) = RowBlock((table,)).cells(key)
        with Image.open(io.BytesIO(bytes(stored_image(folder, cell) or b""))) as image:  # type: ignore[call-overload]
            return image.mode in DEPTH_MODES
    except (
        DatasetError,
        FrameError,
        av.FFmpegError,
        OSError,
        ValueError,
        TypeError,
        IndexError,
        SyntaxError,
    ):
        return False
