"""Which format lies at a path: looked up by names, and in HDF5 by what a file holds."""

import shlex
from contextlib import closing
from pathlib import Path
from typing import Literal

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.foreign import foreign_format
from vla.embed.datasets.lerobot.info import INFO

Format = Literal["lerobot", "act", "robomimic", "zarr"]
HDF5 = ("*.hdf5", "*.h5")
BUFFERS = ("*.zarr", "*.zarr.zip", "*.zip")
EPISODE_ENDS = "meta/episode_ends"
MAX_LOOKED_AT = 1000
"""Folders below, where the one that was named holds nothing."""


def is_dataset(path: Path) -> bool:
    """Tell by names alone whether a path may be a dataset, of whatever format."""
    if path.is_dir():
        return (
            (path / INFO).is_file()
            or (path / EPISODE_ENDS).is_dir()
            or any(True for pattern in HDF5 for _ in path.glob(pattern))
            or foreign_format(path) is not None
        )
    return (path.is_file() and any(path.match(name) for name in (*HDF5, *BUFFERS))) or bool(
        foreign_format(path)
    )


def recognise(folder: DatasetFolder) -> Format:
    """Return the format of a dataset.

    Raises:
        DatasetError: it is none that vla reads; the message says what it is, and what helps.
    """
    path = folder.root if folder.only is None else folder.root / folder.only
    if folder.only is None and folder.has(INFO):
        return "lerobot"
    if folder.only is None and (path / EPISODE_ENDS).is_dir():
        return "zarr"
    if folder.only is not None and any(path.match(name) for name in BUFFERS):
        return "zarr"
    if what := foreign_format(path):
        raise DatasetError(f"{folder.name} is {what}")
    if any(folder.top(pattern) for pattern in HDF5):
        return _hdf5_format(folder)
    raise DatasetError(f"no dataset at {folder.name}: {_what_else(folder, path)}")


def _hdf5_format(folder: DatasetFolder) -> Format:
    """Look into the first HDF5 file."""
    from vla.embed.datasets.hdf5.act_source import ActArrays, episode_files
    from vla.embed.datasets.hdf5.robomimic_source import demos, hdf5_files

    if episode_files(folder):
        return "act"
    first = hdf5_files(folder)[0]
    with closing(ActArrays(folder.file(first))) as arrays:
        if demos(arrays):
            return "robomimic"
        try:
            groups = list(arrays.file)[:20]
        except arrays.errors as error:
            raise DatasetError(f"{arrays.name} is damaged ({error})") from error
    if "traj_0" in groups:
        raise DatasetError(
            f"{arrays.name} holds trajectories of ManiSkill, which vla does not read; write them with "
            "lerobot (LeRobotDataset.create, add_frame, save_episode)"
        )
    if "action" in groups or "observations" in groups:
        raise DatasetError(
            f"{arrays.name} looks like an episode of ACT; name such files episode_0.hdf5 and so on"
        )
    raise DatasetError(
        f"{arrays.name} holds {', '.join(groups) or 'nothing'}; vla reads HDF5 files called episode_0.hdf5 "
        "and so on (ACT, ALOHA), and files with demonstrations data/demo_0 and so on (robomimic)"
    )


def _what_else(folder: DatasetFolder, path: Path) -> str:
    if folder.only is not None:
        return f"it is a file; name the folder that holds the dataset: --dataset {shlex.quote(_owner(path))}"
    below = [child for child in sorted(path.iterdir())[:MAX_LOOKED_AT] if not child.name.startswith(".")]
    if not below:
        return (
            "the folder is empty; record some: vla record --task sim_transfer --out "
            f"{shlex.quote(folder.name)}"
        )
    found = [child for child in below if is_dataset(child) or (child.is_dir() and child.suffix == ".zarr")]
    if found:
        more = f", one of the {len(found)} there" if len(found) > 1 else ""
        return f"but there is one in it; name it: --dataset {shlex.quote(str(found[0]))}{more}"
    return (
        f"it has neither {INFO} (LeRobot), nor episode_*.hdf5 (ACT, ALOHA), nor *.hdf5 (robomimic), nor "
        f"{EPISODE_ENDS} (zarr); record some: vla record --task sim_transfer --out {shlex.quote(folder.name)}"
    )


def _owner(path: Path) -> str:
    """Return the folder that a file of a dataset belongs to: the one above `meta`, `data` or `videos`."""
    for parent in path.parents:
        if parent.name in ("meta", "data", "videos"):
            return str(parent.parent)
    return str(path.parent)
