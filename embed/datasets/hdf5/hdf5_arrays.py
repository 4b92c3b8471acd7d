"""The arrays of one episode in an HDF5 file: of the whole file, or of a group of it."""

import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla.base.errors import DatasetError
from vla.embed.datasets.arrays.episode import Arrays
from vla.embed.datasets.hdf5.opening import get_dataset, get_group, open_file

TASK_ATTRIBUTES = ("task", "language_instruction", "instruction")
MAX_TEXT_BYTES = 1 << 20
"""Of an attribute; robomimic's are kept in 64 KiB, unless a file asks for more."""


class Hdf5Arrays(Arrays):
    """The arrays below a group of a file.

    Args:
        path: of the file.
        group: empty is the whole file.

    Raises:
        DatasetError: it is no HDF5 file, or has no such group.
    """

    def __init__(self, path: Path, group: str = "") -> None:
        super().__init__(f"{path}: {group}" if group else str(path))
        self.file = open_file(path)
        # At the latest before Python ends: libhdf5 crashes where it ends with files open that Python reads.
        self._finish = weakref.finalize(self, self.file.close)
        found = get_group(self.file, group) if group else self.file
        if found is None:
            raise DatasetError(f"{path} has no group '{group}'; the file has changed, run the command again")
        self.group: Any = found

    def close(self) -> None:
        self._finish()

    def array(self, key: str) -> Any:
        return get_dataset(self.group, key)

    def attribute(self, place: Any, name: str) -> str:
        """Return an attribute of a file or group that is a text; empty if there is none.

        Raises:
            DatasetError: it cannot be read.
        """
        try:
            if name not in place.attrs:
                return ""
            stored = place.attrs.get_id(name)
            if stored.shape != () or stored.get_storage_size() > MAX_TEXT_BYTES:
                return ""
            value = place.attrs[name]
        except self.errors as error:
            raise DatasetError(f"{self.name}: attribute '{name}' cannot be read ({error})") from error
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        return str(value) if isinstance(value, str) else ""

    def table(self, place: Any, name: str) -> Mapping[str, Any]:
        """Return an attribute that is a JSON object; an empty one if there is none."""
        try:
            value = json.loads(self.attribute(place, name))
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}
