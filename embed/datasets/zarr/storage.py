"""The files of a zarr hierarchy: of a directory, or of a zip archive."""

import zipfile
from collections.abc import Iterable
from functools import cached_property

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder

ARRAY = (".zarray", "zarr.json")
"""The metadata of an array in formats 2 and 3."""
ZIP_ERRORS = (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile)


class Storage:
    """Files by their names in the hierarchy, such as `data/img/.zarray`.

    Args:
        folder: the directory, or the archive in it.

    Attributes:
        dataset: its name, for messages.

    Raises:
        DatasetError: the archive cannot be opened.
    """

    def __init__(self, folder: DatasetFolder) -> None:
        self._folder, self.dataset = folder, folder.name
        self._zip: zipfile.ZipFile | None = None
        if folder.only is not None:
            try:
                self._zip = zipfile.ZipFile(folder.file(folder.only))
            except ZIP_ERRORS as error:
                raise DatasetError(f"{folder.name} is no zip archive that can be read ({error})") from error

    @cached_property
    def names(self) -> list[str]:
        """All files, sorted. Those of zarr's metadata begin with a point, so hidden ones are among them."""
        if self._zip is not None:
            return sorted(name for name in self._zip.namelist() if not name.endswith("/"))
        root = self._folder.root
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    def has(self, name: str) -> bool:
        """Tell whether there is such a file."""
        if self._zip is None:
            return self._folder.has(name)
        return name in self._zip.NameToInfo

    def read(self, name: str, limit: int) -> bytes:
        """Return a file.

        Args:
            name: of the file.
            limit: bytes that it may have.

        Raises:
            DatasetError: it is missing, larger, damaged, or lies outside.
        """
        try:
            if self._zip is None:
                path = self._folder.file(name)
                size = path.stat().st_size
            else:
                size = self._zip.getinfo(name).file_size
            if size > limit:
                raise DatasetError(f"{self.dataset}: {name} has {size} bytes, at most {limit} are due")
            return path.read_bytes() if self._zip is None else self._zip.read(name)
        except KeyError:
            raise DatasetError(f"{self.dataset}: {name} is missing; the dataset is incomplete") from None
        except ZIP_ERRORS as error:
            raise DatasetError(f"{self.dataset}: {name} cannot be read ({error})") from error

    def arrays(self, group: str) -> list[str]:
        """Return the names of the arrays directly in a group."""
        if self._zip is None:
            found: Iterable[str] = (
                path.name for path in (self._folder.root / group).glob("*") if path.is_dir()
            )
        else:
            found = {
                parts[1] for name in self.names if (parts := name.split("/"))[0] == group and len(parts) > 2
            }
        return sorted(name for name in found if any(self.has(f"{group}/{name}/{file}") for file in ARRAY))

    def files(self, array: str) -> list[str]:
        """Return the files of an array of a directory."""
        return [name for name in self.names if name.startswith(f"{array}/")]
