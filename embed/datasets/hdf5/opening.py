"""Open HDF5 files without letting them reach beyond themselves.

An HDF5 file may hold links and data that live in other files, and may claim any size. Only plain datasets
that are stored in the file itself, of moderate size, are handed out; `hdf5_bytes` holds back what libhdf5
would not come to an end with.
"""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from vla.base.errors import DatasetError, nearest
from vla.embed.datasets.hdf5.heaps import Hdf5Bytes

MAX_CHUNK_BYTES = 1 << 30
"""HDF5 unpacks whole chunks. ACT stores a chunk a frame, some writers one an episode."""
MAX_NAMES = 1000
EXTRA = "pip install 'vla[hdf5]'"
DAMAGE = (KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What h5py raises where it cannot follow a file."""


def open_file(path: Path) -> Any:
    """Open an HDF5 file for reading; an `h5py.File`.

    Raises:
        DatasetError: it is no HDF5 file, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise DatasetError(f"{path} needs h5py to be read: {EXTRA}") from error
    try:
        # Read-only media cannot be locked. The bytes are closed by going out of use with the file.
        return h5py.File(Hdf5Bytes(path), "r", locking=False)
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{path} is no HDF5 file that can be read ({error})") from error


def get_group(base: Any, name: str) -> Any | None:
    """Return a group below a file or group; None if there is none.

    Raises:
        DatasetError: the way there leads out of the file.
    """
    import h5py

    found = _follow(base, name)
    return found if isinstance(found, h5py.Group) else None


def get_dataset(base: Any, name: str) -> Any:
    """Return a dataset below a file or group; an `h5py.Dataset`.

    Args:
        base: from `open_file` or `get_group`.
        name: a path such as `observations/qpos`.

    Raises:
        DatasetError: there is none, its data are in another file, or it claims an absurd size.
    """
    import h5py

    found, file = _follow(base, name), base.file.filename
    if not isinstance(found, h5py.Dataset):
        raise DatasetError(f"{file} has no dataset '{name}'; {nearest(name, dataset_names(base))}")
    if found.is_virtual or found.external:
        raise DatasetError(f"{file}: '{name}' keeps its data in other files; vla reads one file only")
    chunk_bytes = math.prod(found.chunks or ()) * found.dtype.itemsize
    if chunk_bytes > MAX_CHUNK_BYTES:
        raise DatasetError(
            f"{file}: '{name}' claims chunks of {chunk_bytes >> 20} MiB; "
            f"vla reads up to {MAX_CHUNK_BYTES >> 20}"
        )
    return found


def member_names(group: Any | None) -> list[str]:
    """List what is directly in a group; nothing is in one that is not there.

    Raises:
        DatasetError: the group is damaged.
    """
    if group is None:
        return []
    try:
        return list(group)
    except DAMAGE as error:
        raise DatasetError(f"{group.file.filename}: '{group.name}' cannot be read ({error})") from error


def dataset_names(base: Any) -> list[str]:
    """List the datasets below a file or group, as far as they can be listed; links are not followed."""
    import h5py

    names: list[str] = []

    def note(name: str, found: Any) -> bool | None:
        if isinstance(found, h5py.Dataset):
            names.append(name)
        return True if len(names) >= MAX_NAMES else None  # anything but None ends the visit

    with suppress(*DAMAGE):  # they only help with a message
        base.visititems(note)
    return names


def _follow(base: Any, name: str, links_left: int = 8) -> Any | None:
    """Go to an object without leaving the file; None if there is none."""
    import h5py

    here = base
    try:
        for part in filter(None, name.split("/")):
            link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.HardLink):
                here = here[part]
            elif isinstance(link, h5py.SoftLink) and links_left:
                # A soft link names a path, and on the way there may be an external one: walk it likewise.
                here = _follow(base.file if link.path.startswith("/") else here, link.path, links_left - 1)
            else:
                raise DatasetError(
                    f"{base.file.filename}: '{part}' of '{name}' is a link that leads out of the file; vla "
                    "reads one file only, copy the data in (h5copy)"
                )
    except DAMAGE as error:
        raise DatasetError(f"{base.file.filename}: '{name}' cannot be read ({error})") from error
    return here
