"""Read replay buffers in zarr, directories or zip archives, as diffusion_policy, DP3 and UMI write them.

data/<name>          [N, …], the frames of all episodes one behind the other: images, vectors, point clouds
meta/episode_ends    int [E], the frame behind the last one of each episode
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vla.base.errors import DatasetError, nearest
from vla.cache.stream import ACTION, STATE
from vla.embed.datasets.arrays.array_source import ArraySource, Place
from vla.embed.datasets.arrays.episode import Arrays
from vla.embed.datasets.arrays.pictures import pixel_size
from vla.embed.datasets.arrays.robot_state import robot_state
from vla.embed.datasets.dataset_config import DatasetConfig, names_of
from vla.embed.datasets.episodes import MAX_FRAMES
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.source import NoFps, vector_keys
from vla.embed.datasets.zarr.storage import Storage
from vla.embed.datasets.zarr.zarr_array import ZarrArray

DATA, EPISODE_ENDS = "data", "meta/episode_ends"
MAX_EPISODES = 1 << 22


class ReplayBuffer(Arrays):
    """The arrays of all episodes.

    Args:
        folder: the directory, or the archive in it.
        workers: threads that unpack.

    Raises:
        DatasetError: it is no replay buffer.
    """

    def __init__(self, folder: DatasetFolder, workers: int) -> None:
        super().__init__(folder.name)
        self._storage, self._pool = Storage(folder), ThreadPoolExecutor(workers)
        self._arrays: dict[str, ZarrArray] = {}
        self.names = self._storage.arrays(DATA)
        if not self.names:
            raise DatasetError(
                f"{self.name} has no arrays below {DATA}/; vla reads replay buffers with {EPISODE_ENDS}"
            )

    def close(self) -> None:
        """Do nothing: opening an archive of many files takes its time, so it stays open while this lives."""

    def array(self, key: str) -> ZarrArray:
        if key not in self._arrays:
            if key not in self.names:
                raise DatasetError(
                    f"{self.name} has no array '{key}' below {DATA}/; {nearest(key, self.names)}"
                )
            self._arrays[key] = ZarrArray(self._storage, f"{DATA}/{key}", self._pool)
        return self._arrays[key]

    def cameras(self) -> dict[str, str]:
        arrays = {name: self.array(name) for name in self.names}
        found = {name: name for name, array in arrays.items() if pixel_size(array.shape, array.dtype)}
        if not found:
            raise DatasetError(
                f"{self.name} has no images (uint8 [frames, height, width, 3]) below {DATA}/; nothing to "
                "embed"
            )
        return found

    def vectors(self) -> dict[str, int]:
        """Return the sizes of all arrays of vectors, by name; without the action."""
        shapes = {name: self.array(name).shape for name in self.names if name != ACTION}
        return {name: shape[1] for name, shape in shapes.items() if len(shape) == 2}

    def image_bytes(self, key: str, frames: range) -> Iterator[bytes]:
        array = self.array(key)
        for row in frames:
            stored = array.stored_image(row)
            if stored is None:
                yield from super().image_bytes(key, range(row, frames.stop))
                return
            yield stored

    def episode_ends(self) -> list[int]:
        """Return the frame behind the last one of each episode.

        Raises:
            DatasetError: they are not numbers that rise, or too many.
        """
        array = ZarrArray(self._storage, EPISODE_ENDS, self._pool)
        if len(array.shape) != 1 or array.dtype.kind not in "iu" or array.shape[0] > MAX_EPISODES:
            raise DatasetError(
                f"{self.name}: {EPISODE_ENDS} is {array.dtype} {list(array.shape)}; int [E] is due"
            )
        ends = array[:].astype(np.int64)
        lengths = np.diff(ends, prepend=0)
        if len(ends) and (lengths.min() < 1 or ends[-1] > MAX_FRAMES):
            bad = int(np.argmax((lengths < 1) | (ends > MAX_FRAMES)))
            raise DatasetError(
                f"{self.name}: episode {bad} ends at frame {ends[bad]}; {EPISODE_ENDS} is damaged"
            )
        return [int(end) for end in ends]

    def files_of(self, keys: list[str], rows: range) -> list[str]:
        """Return the files of a directory that hold some rows of some arrays."""
        return sorted({file for key in keys for file in self.array(key).files_of(rows)})


class ZarrSource(ArraySource):
    """A replay buffer.

    Args:
        folder: the directory, or the archive in it.
        config: cameras, keys, episodes, frames a second and order of colours.
        workers: threads that decode.

    Raises:
        DatasetError: no frames a second are given, or an episode, camera or key is not there.
    """

    def __init__(self, folder: DatasetFolder, config: DatasetConfig, workers: int) -> None:
        if config.fps is None:
            raise NoFps(folder.name, "a replay buffer in zarr", "PushT's: --set dataset.fps=10")
        self._buffer = ReplayBuffer(folder, workers)
        if not config.action_key and ACTION not in self._buffer.names:
            there = ", ".join(f"{name} [{size}]" for name, size in self._buffer.vectors().items())
            raise DatasetError(
                f"{folder.name} has no array '{ACTION}'; name what is to be learnt, in UMI the poses: "
                '--set \'dataset.action_key=["robot0_eef_pos", "robot0_eef_rot_axis_angle", '
                f'"robot0_gripper_width"]\'. Its vectors: {there}'
            )
        vectors = vector_keys(config, "", ACTION)
        if vectors.get(STATE) == "":
            vectors[STATE] = robot_state(folder.name, self._buffer.vectors())
        ends = self._buffer.episode_ends()
        starts = [0, *ends[:-1]]
        places = {
            k: Place(folder.only or "", rows=range(start, end))
            for k, (start, end) in enumerate(zip(starts, ends, strict=True))
        }
        super().__init__(folder, config, workers, config.fps, places, vectors)
        found = self._buffer.contents(self.camera_names, self._numbers).length
        if found != ends[-1]:
            raise DatasetError(
                f"{folder.name} has {found} frames, {EPISODE_ENDS} says {ends[-1]}; the dataset is damaged"
            )

    @property
    def format(self) -> str:
        return "zarr"

    def _open(self, place: Place) -> ReplayBuffer:
        return self._buffer

    def files(self) -> list[str]:
        """List the archive, or the files of the arrays that are read."""
        if self._folder.only is not None:
            return [self._folder.only]
        positions = range(len(self.episodes))
        return sorted({file for position in positions for file in self.place(position)[0]})

    def place(self, position: int) -> tuple[tuple[str, ...], str]:
        files, how = super().place(position)
        rows = self._entries[position].place.rows
        if self._folder.only is not None or rows is None:
            return files, how
        keys = [column for key in self.keys.values() for column in names_of(key)]
        return tuple(self._buffer.files_of(keys, rows)), how
