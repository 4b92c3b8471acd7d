"""Readers of demonstrations. `open_source` chooses one by looking at the path."""

import shlex

from vla.base.errors import DatasetError
from vla.base.threads import usable_cores
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.hub import complete, find_dataset
from vla.embed.datasets.lerobot.info import INFO
from vla.embed.datasets.lerobot.source_lerobot import LeRobotSource
from vla.embed.datasets.source import FrameBlock, FrameSource

__all__ = ["FrameBlock", "FrameSource", "LeRobotSource", "open_source"]


def open_source(config: DatasetConfig, workers: int = 0) -> FrameSource:
    """Open the demonstrations that a configuration names.

    Args:
        config: path, cameras, keys and episodes.
        workers: threads that decode images; 0 is one per core.

    Raises:
        DatasetError: nothing readable lies there, or a camera, key or episode is missing.
    """
    folder = find_dataset(config)
    source = _choose(folder, config, workers or usable_cores())
    if folder.revision is not None:
        complete(folder, source.files())
    return source


def _choose(folder: DatasetFolder, config: DatasetConfig, workers: int) -> FrameSource:
    if folder.has(INFO):
        return LeRobotSource(folder, config, workers)
    from vla.embed.datasets.hdf5.source_hdf5 import Hdf5Source, episode_files

    if episode_files(folder):
        return Hdf5Source(folder, config, workers)
    raise DatasetError(
        f"no dataset at {folder.name}: it has neither {INFO} (LeRobot) nor episode_*.hdf5 (ACT, ALOHA); "
        f"record some: vla record --task sim_transfer --out {shlex.quote(folder.name)}"
    )
