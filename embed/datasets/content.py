"""The bytes of a dataset: hashed before it is read, wherever it lies, and watched while it is read.

A cache is named after the bytes that were there when it was begun. Features of other bytes must never get
into it, so every shard is written only if the files still are the same ones then.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vla.base.errors import DatasetError
from vla.base.files import sha256_of
from vla.embed.datasets.folder import DatasetFolder


def content_sha256(folder: DatasetFolder, files: Sequence[str], settings: Sequence[str] = ()) -> str:
    """Hash the relative names and bytes of some files of a dataset.

    Args:
        folder: the dataset.
        files: relative names.
        settings: what the user said that the files do not, such as the order of colours; hashed too.

    Raises:
        DatasetError: a file is missing or cannot be read.
    """
    names = sorted(files)
    try:
        with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter lock
            digests = list(pool.map(sha256_of, [folder.file(name) for name in names]))
    except OSError as error:
        raise DatasetError(f"{folder.name} cannot be read: {error}") from error
    whole = hashlib.sha256()
    for name, digest in zip(names, digests, strict=True):
        whole.update(f"{name}\0{digest}\n".encode())
    for setting in settings:
        whole.update(f"{setting}\n".encode())
    return whole.hexdigest()


class FileWatch:
    """Size, time of change and inode number of some files.

    Args:
        name: of the dataset, for messages.
        root: its directory.
        files: relative names.
    """

    def __init__(self, name: str, root: Path, files: Sequence[str]) -> None:
        self._name, self._root = name, root
        self._stamps = {file: self._stamp(file) for file in files}

    def require_unchanged(self) -> None:
        """Look at the files again.

        Raises:
            DatasetError: one has changed or is gone; the message names it.
        """
        for file, stamp in self._stamps.items():
            if (now := self._stamp(file)) != stamp:
                raise DatasetError(
                    f"{self._name}: {file} {'has changed' if now else 'has vanished'} while it was read; "
                    "nothing of the new content was cached. Run the same command again: with the old content "
                    "it goes on, with new content it makes a new cache"
                )

    def _stamp(self, file: str) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._root / file)  # noqa: PTH116 follows links, as reading does
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino
