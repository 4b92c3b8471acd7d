"""Readers of demonstrations. `open_source` chooses one by looking at the path."""

import os

from vla.embed.config import DatasetConfig
from vla.embed.sources.lerobot_v3 import LeRobotV3Source
from vla.embed.sources.source import FrameBlock, FrameSource

__all__ = ["FrameBlock", "FrameSource", "LeRobotV3Source", "open_source"]


def open_source(config: DatasetConfig, workers: int = 0) -> FrameSource:
    """Open the demonstrations that a configuration names.

    Args:
        config: path, cameras and keys.
        workers: threads that decode images; 0 is one a core.

    Raises:
        DatasetError: nothing readable lies there, or a camera or key is missing.
    """
    return LeRobotV3Source(config, workers or os.cpu_count() or 1)
