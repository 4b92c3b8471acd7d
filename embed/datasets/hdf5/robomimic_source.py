"""Read demonstrations that are groups of HDF5 files, as robomimic, MimicGen, LIBERO and Isaac Lab write them.

data/demo_N/obs/<name>    images, and vectors of the robot and of objects
data/demo_N/actions       float [T, A]
mask/<subset>             names of demonstrations, such as those of `train`
attributes of `data`      env_args: JSON with env_name and, of robosuite, control_freq; problem_info of LIBERO

Images are taken as they are stored; LIBERO's stand upside down.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np

from vla.base.errors import DatasetError
from vla.cache.stream import STATE
from vla.embed.datasets.arrays.array_source import ArraySource, Place
from vla.embed.datasets.arrays.pictures import pixel_size
from vla.embed.datasets.arrays.robot_state import robot_state
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.folder import DatasetFolder, by_number
from vla.embed.datasets.hdf5.hdf5_arrays import TASK_ATTRIBUTES, Hdf5Arrays
from vla.embed.datasets.hdf5.opening import MAX_NAMES, get_dataset, get_group, member_names
from vla.embed.datasets.source import NoFps, vector_keys

DATA, OBS, MASK = "data", "obs", "mask"
DEMO = re.compile(r"demo_(?:0|[1-9]\d{0,8})", re.ASCII)
MAX_SUBSET = 1 << 20
"""Names that a subset may list."""


def demos(arrays: Hdf5Arrays) -> list[str]:
    """Return the names of the demonstrations of a file, in numerical order; none if it has no such."""
    names = member_names(get_group(arrays.file, DATA))
    return sorted(filter(DEMO.fullmatch, names), key=by_number)


class DemoArrays(Hdf5Arrays):
    """One demonstration; its observations go by their names below `obs`."""

    def array(self, key: str) -> Any:
        below = key.partition("/")[0] in member_names(get_group(self.group, OBS))
        return get_dataset(self.group, f"{OBS}/{key}" if below else key)

    def cameras(self) -> dict[str, str]:
        found = {
            name: name
            for name, array in self.observations()
            if array.dtype == np.uint8 and pixel_size(array.shape, array.dtype)
        }
        if not found:
            raise DatasetError(
                f"{self.name} has no images (uint8 [frames, height, width, 3]) below {OBS}; nothing to "
                "embed. Render them into the file: robomimic/scripts/dataset_states_to_obs.py"
            )
        return found

    def vectors(self) -> dict[str, int]:
        """Return the sizes of all observations that are vectors, by name."""
        return {
            name: int(array.shape[1])
            for name, array in self.observations()
            if array.dtype.kind == "f" and len(array.shape) == 2
        }

    def observations(self) -> Iterator[tuple[str, Any]]:
        """Yield the arrays directly below `obs`, as the file has them; links are not followed."""
        import h5py

        obs: Any = get_group(self.group, OBS)
        for name in member_names(obs)[:MAX_NAMES]:
            try:
                found = obs[name] if isinstance(obs.get(name, getlink=True), h5py.HardLink) else None
            except self.errors as error:
                raise DatasetError(f"{self.name}: {OBS}/{name} cannot be read ({error})") from error
            if isinstance(found, h5py.Dataset):
                yield name, found

    def task(self) -> str:
        data = get_group(self.file, DATA)
        env = self.table(data, "env_args")
        texts = (
            self.table(self.group, "ep_meta").get("lang"),  # RoboCasa
            *(
                self.attribute(place, name)
                for name in TASK_ATTRIBUTES
                for place in (self.group, data, self.file)
            ),
            env.get("env_lang"),
            _spelled(self.table(data, "problem_info").get("language_instruction")),  # LIBERO
            env.get("env_name"),
        )
        return next((text for text in texts if text and isinstance(text, str)), "")

    def fps(self) -> float | None:
        """Return how often the environment was controlled, if the file says so [1/s]."""
        env = self.table(get_group(self.file, DATA), "env_args")
        kwargs, sim = env.get("env_kwargs"), env.get("sim_args")
        try:
            if isinstance(kwargs, dict) and "control_freq" in kwargs:  # robosuite
                fps = float(kwargs["control_freq"])
            elif isinstance(sim, dict):  # Isaac Lab
                fps = 1 / (float(sim["dt"]) * float(sim["decimation"]))
            else:
                return None
        except (KeyError, TypeError, ValueError, ArithmeticError):
            return None
        return round(fps, 6) if 0 < fps <= 1000 else None


class RobomimicSource(ArraySource):
    """Files of demonstrations; those of a single file keep its numbers, those of several are counted through.

    Args:
        folder: the directory, or one file of it.
        config: cameras, keys, episodes, subset and order of colours.
        workers: threads that decode.

    Raises:
        DatasetError: frames a second, state, subset, or a camera, column or episode are not there.
    """

    def __init__(self, folder: DatasetFolder, config: DatasetConfig, workers: int) -> None:
        found: list[Place] = []
        taken: set[int] = set()
        for file in hdf5_files(folder):
            with closing(DemoArrays(folder.file(file))) as arrays:
                names = demos(arrays)
                if not names:
                    raise DatasetError(
                        f"{arrays.name} has no {DATA}/demo_0, unlike other files there; move it away"
                    )
                listed = _subset(arrays, config.subset) if config.subset else set(names)
            taken |= {len(found) + k for k, name in enumerate(names) if name in listed}
            found += [Place(file, f"{DATA}/{name}") for name in names]
        single = len({place.file for place in found}) == 1
        numbers = [int(place.group.rpartition("_")[2]) if single else k for k, place in enumerate(found)]
        with closing(DemoArrays(folder.file(found[0].file), found[0].group)) as first:
            fps = _agreed_fps(folder.name, config, first.fps())
            vectors = vector_keys(config, "", "actions")
            if vectors.get(STATE) == "":
                vectors[STATE] = robot_state(first.name, first.vectors())
        super().__init__(
            *(folder, config, workers, fps),
            dict(zip(numbers, found, strict=True)),
            vectors,
            {numbers[k] for k in taken} if config.subset else None,
        )

    @property
    def format(self) -> str:
        return "hdf5-robomimic"

    def _open(self, place: Place) -> DemoArrays:
        return DemoArrays(self._folder.file(place.file), place.group)


def hdf5_files(folder: DatasetFolder) -> list[str]:
    """Return the HDF5 files directly in a folder, as people count."""
    return sorted({*folder.top("*.hdf5"), *folder.top("*.h5")}, key=by_number)


def _subset(arrays: Hdf5Arrays, subset: str) -> set[str]:
    """Return the names of the demonstrations of a subset.

    Raises:
        DatasetError: there is no such subset, or it lists what is not there.
    """
    masks = get_group(arrays.file, MASK)
    subsets = member_names(masks)
    if subset not in subsets:
        known = (
            f"its subsets: {', '.join(subsets)}"
            if subsets
            else "it has none (no mask/); leave dataset.subset out"
        )
        raise DatasetError(f"{arrays.name} has no subset '{subset}'; {known}")
    found = get_dataset(masks, subset)
    if len(found.shape) != 1 or found.shape[0] > MAX_SUBSET:
        raise DatasetError(
            f"{arrays.name}: mask/{subset} is {list(found.shape)}; a subset is a list of names"
        )
    try:
        names = {n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in found[:]}
    except arrays.errors as error:
        raise DatasetError(f"{arrays.name}: mask/{subset} cannot be read ({error})") from error
    if missing := sorted(names.difference(demos(arrays)), key=by_number):
        raise DatasetError(f"{arrays.name}: mask/{subset} lists '{missing[0]:.80}', which is not in the file")
    return names


def _agreed_fps(dataset: str, config: DatasetConfig, stored: float | None) -> float:
    if stored is None and config.fps is None:
        example = "robosuite's: --set dataset.fps=20"
        raise NoFps(dataset, "demonstrations without control_freq in env_args", example)
    if stored is not None and config.fps not in (None, stored):
        raise DatasetError(
            f"{dataset} says {stored:g} frames a second (env_args of data), the configuration {config.fps:g}"
            "; remove dataset.fps"
        )
    return stored or config.fps or 0.0


def _spelled(text: object) -> object:
    """Join a text that was stored as a list of its characters, or words."""
    if not isinstance(text, list) or not all(isinstance(part, str) for part in text):
        return text
    return ("" if all(len(part) == 1 for part in text) else " ").join(text)
