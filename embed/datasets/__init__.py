"""Readers of demonstrations. `open_source` chooses one by looking at the path."""

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
    from vla.embed.datasets.recognise import recognise

    folder = find_dataset(config)
    threads = workers or usable_cores()
    kind = recognise(folder)
    if config.subset and kind != "robomimic":
        raise DatasetError(f"{folder.name} has no subsets, only robomimic files do; leave dataset.subset out")
    source: FrameSource
    match kind:
        case "lerobot":
            from vla.embed.datasets.lerobot.lerobot_source import LeRobotSource

            source = LeRobotSource(folder, config, threads)
        case "act":
            from vla.embed.datasets.hdf5.act_source import ActSource

            source = ActSource(folder, config, threads)
        case "robomimic":
            from vla.embed.datasets.hdf5.robomimic_source import RobomimicSource

            source = RobomimicSource(folder, config, threads)
        case "zarr":
            from vla.embed.datasets.zarr.zarr_source import ZarrSource

            source = ZarrSource(folder, config, threads)
    if folder.revision is not None:
        complete(folder, source.files())
    return source
