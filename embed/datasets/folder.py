"""The directory that a dataset may read from, and nothing beside it.

Metadata names files by templates and numbers, and whoever wrote it may be a stranger: absolute paths, `..`
and links that lead out of the dataset are refused, whatever they lead to.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from vla.base.errors import DatasetError, nearest

POINTER = b"version https://git-lfs"
"""How the text begins that git keeps in the place of a large file."""
MAX_POINTER_BYTES = 1024
FIELD = re.compile(r"\{(\w+)(?::0(\d)d)?\}")


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset's directory."""

    name: str
    """As the user named it: a path, or `owner/name` on the Hub."""
    root: Path
    revision: str | None = None
    """Commit on the Hub; None for a directory."""
    only: str | None = None
    """The file below `root` that was named, where it was not the directory."""

    @cached_property
    def _boundary(self) -> Path:
        """The directory that links may not leave.

        In the Hub's own cache, files are links from snapshots/<commit>/ to blobs/ of the same repository.
        """
        root = self.root.resolve()
        if root.parent.name == "snapshots" and (root.parents[1] / "blobs").is_dir():
            return root.parents[1]
        return root

    def has(self, relative: str) -> bool:
        """Tell whether a file is there and lies inside.

        Raises:
            DatasetError: the name leads out of the dataset.
        """
        return self._resolve(relative).is_file()

    def file(self, relative: str) -> Path:
        """Return the place of a file of the dataset.

        Raises:
            DatasetError: there is no such file, it is a pointer of git-lfs, or the name leads out of the
                dataset.
        """
        path = self._resolve(relative)
        if not path.is_file():
            raise DatasetError(f"{self.name}: {relative} is missing; the dataset is incomplete")
        if is_pointer(path):
            raise DatasetError(
                f"{self.name}: {relative} is a pointer of git-lfs, not the file itself; get the files: "
                f"git -C {shlex.quote(str(self.root))} lfs pull"
            )
        return path

    def top(self, pattern: str) -> list[str]:
        """List the names directly in the directory that fit a pattern, in the order in which people count.

        Hidden ones are left out: macOS leaves `._episode_0.hdf5` beside files. Of a single file that was
        named, it is that one.
        """
        if self.only is not None:
            return [self.only] if PurePath(self.only).match(pattern) else []
        names = [path.name for path in self.root.glob(pattern) if not path.name.startswith(".")]
        return sorted(names, key=by_number)

    def files_below(self, folder: str) -> list[str]:
        """List the relative names of all files below a folder, sorted.

        Hidden files are left out: downloads leave bookkeeping of their own beside the data.
        """
        found = (path.relative_to(self.root) for path in (self.root / folder).rglob("*") if path.is_file())
        return sorted(
            path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)
        )

    def _resolve(self, relative: str) -> Path:
        try:
            path = (self.root / relative).resolve()
            path.exists()  # resolve() lets names pass that are too long
        except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, links in a circle
            raise DatasetError(f"{self.name}: {relative[:80]!r} is no file name ({error})") from error
        if not path.is_relative_to(self._boundary):
            raise DatasetError(
                f"{self.name}: {relative} leads out of the dataset, to {path}; vla reads nothing outside "
                "the directory that was named; copy the file in, or name the directory that holds it"
            )
        return path


def is_pointer(path: Path) -> bool:
    """Tell whether a file is what git leaves in its place until `git lfs pull`."""
    try:
        if path.stat().st_size > MAX_POINTER_BYTES:
            return False
        with path.open("rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:
        return False


def by_number(name: str) -> tuple[tuple[str, int, str], ...]:
    """Return a key that sorts names as people count: `demo_2` before `demo_10`."""
    runs = re.findall(r"(\D*)(\d*)", name, re.ASCII)
    return tuple((text, int(digits[:18] or -1), digits) for text, digits in runs)


def fill_template(template: str, fields: Mapping[str, int | str]) -> str:
    """Fill a path template such as `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`.

    Only plain fields are known. `str.format` would follow attributes and indices of whatever it is given.

    Raises:
        DatasetError: the template has another field, or braces that belong to none.
    """

    def fill(match: re.Match[str]) -> str:
        name, width = match.groups()
        if name not in fields:
            raise DatasetError(f"path template '{template}' has an unknown field; {nearest(name, fields)}")
        value = fields[name]
        return f"{value:0{width}d}" if width and isinstance(value, int) else str(value)

    if set(FIELD.sub("", template)) & set("{}"):
        raise DatasetError(
            f"path template '{template}' is not one that vla fills; fields: {', '.join(fields)}"
        )
    return FIELD.sub(fill, template)
