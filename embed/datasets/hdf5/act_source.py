"""Read folders of HDF5 episodes, `episode_0.hdf5` and so on, as ACT, ALOHA and RoboIMI write them.

observations/images/<camera>   images
observations/qpos              float [T, S]
action                         float [T, A]
base_action                    float [T, 2], of mobile ALOHA; anything else may be named too
attributes of the file         task text under one of TASK_ATTRIBUTES, if there is any
"""

import re

from vla.base.errors import DatasetError
from vla.embed.datasets.arrays.array_source import ArraySource, Place
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.hdf5.hdf5_arrays import TASK_ATTRIBUTES, Hdf5Arrays
from vla.embed.datasets.hdf5.opening import get_group, member_names
from vla.embed.datasets.source import NoFps, vector_keys

IMAGES = "observations/images"
NAME = re.compile(r"episode_?(\d{1,9})\.(hdf5|h5)", re.ASCII)


def episode_files(folder: DatasetFolder) -> dict[int, str]:
    """Return the episode files of a folder by number, in numerical order.

    Raises:
        DatasetError: two files have the same number.
    """
    found: dict[int, str] = {}
    for name in folder.top("episode*.h*5"):
        match = NAME.fullmatch(name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise DatasetError(f"{folder.name}: {found[number]} and {name} are the same episode; remove one")
        found[number] = name
    return dict(sorted(found.items()))


class ActArrays(Hdf5Arrays):
    """One episode file."""

    def cameras(self) -> dict[str, str]:
        names = member_names(get_group(self.file, IMAGES))
        if not names:
            raise DatasetError(f"{self.name} has no cameras below {IMAGES}; nothing to embed")
        return {name: f"{IMAGES}/{name}" for name in names}

    def task(self) -> str:
        return next(filter(None, (self.attribute(self.file, name) for name in TASK_ATTRIBUTES)), "")


class ActSource(ArraySource):
    """A folder of HDF5 episodes.

    Args:
        folder: the directory.
        config: cameras, keys, episodes, frames a second and order of colours.
        workers: threads that decode.

    Raises:
        DatasetError: no frames a second are given, or an episode, camera or key is not there.
    """

    def __init__(self, folder: DatasetFolder, config: DatasetConfig, workers: int) -> None:
        if config.fps is None:
            raise NoFps(folder.name, "HDF5 episodes", "ALOHA's: --set dataset.fps=50")
        places = {number: Place(file) for number, file in episode_files(folder).items()}
        vectors = vector_keys(config, "observations/qpos", "action")
        super().__init__(folder, config, workers, config.fps, places, vectors)

    @property
    def format(self) -> str:
        return "hdf5-act"

    def _open(self, place: Place) -> ActArrays:
        return ActArrays(self._folder.file(place.file))
