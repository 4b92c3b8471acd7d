"""Readers of demonstrations. `open_source` chooses one by looking at the path."""

import shlex

from vla.base.errors import DatasetError
from vla.base.threads import usable_cores
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.source import FrameBlock, FrameSource

__all__ = ["FrameBlock", "FrameSource", "open_source"]


def open_source(config: DatasetConfig, workers: int = 0) -> FrameSource:
    """Open the demonstrations that a configuration names.

    Args:
        config: path, cameras, sensors, keys and episodes.
        workers: threads that decode images; 0 is one per core.

    Raises:
        DatasetError: nothing readable lies there, or a camera, sensor, key or episode is missing.
    """
    # Here, because reading a configuration needs none of the libraries that read tables and videos.
    from vla.embed.datasets.find_dataset import complete, find_dataset
    from vla.embed.datasets.hdf5.hdf5_source import Hdf5Source, episode_files
    from vla.embed.datasets.lerobot.info import INFO
    from vla.embed.datasets.lerobot.lerobot_source import LeRobotSource

    folder = find_dataset(config)
    threads = workers or usable_cores()
    source: FrameSource
    if folder.has(INFO):
        source = LeRobotSource(folder, config, threads)
    elif episode_files(folder):
        source = Hdf5Source(folder, config, threads)
    else:
        raise DatasetError(
            f"no dataset at {folder.name}: it has neither {INFO} (LeRobot) nor episode_*.hdf5 (ACT, ALOHA); "
            f"record some: vla record --task sim_transfer --out {shlex.quote(folder.name)}"
        )
    if folder.revision is not None:
        complete(folder, source.files())
    return source
