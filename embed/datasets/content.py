"""What identifies demonstrations: each episode by what its streams are made of; and files that are watched.

The content of an episode is the SHA-256 over the digests of its streams, in order: numbers by their values,
images by their encoded bytes, videos by the packets that their frames need (`vla.embed.datasets.packets`).
Which file holds an episode, under which number, and what lies beside it does not matter; two encodings of the
same pixels are different episodes. Features of other bytes must never get into a cache, so every shard is
written only if the files still are the same ones then.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vla.base.errors import DatasetError
from vla.base.files import sha256_of
from vla.cache.stream import Stream
from vla.embed.datasets.folder import DatasetFolder


class EpisodeContent:
    """The content of one episode, taken in piece by piece.

    Args:
        streams: of the dataset, in order.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = {stream.name: stream for stream in streams}
        self._hashes = {stream.name: hashlib.sha256() for stream in streams}

    def add_numbers(self, name: str, values: np.ndarray) -> None:
        """Take in the next frames of a stream of numbers, [n, *shape]."""
        self._hashes[name].update(np.ascontiguousarray(values, "<f4").tobytes())

    def add_images(self, name: str, encoded: Iterable[bytes]) -> None:
        """Take in the next frames of a camera, an image each."""
        for image in encoded:
            self._hashes[name].update(len(image).to_bytes(8, "little"))
            self._hashes[name].update(image)

    def add(self, name: str, data: bytes) -> None:
        """Take in anything else that decides a stream."""
        self._hashes[name].update(data)

    def digest(self) -> bytes:
        """Return the identity, 32 bytes."""
        whole = hashlib.sha256()
        for name, stream in self._streams.items():
            shape = [] if stream.kind == "image" else list(stream.shape)
            whole.update(f"{name}\0{stream.kind}\0{shape}\0".encode())
            whole.update(self._hashes[name].digest())
        return whole.digest()


def files_sha256(folder: DatasetFolder, files: Sequence[str], settings: Sequence[str] = ()) -> str:
    """Hash names and bytes of some files of a dataset, by which caches of formats 1 and 2 were named.

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

    @property
    def stamps(self) -> Mapping[str, tuple[int, int, int] | None]:
        """Size, time of change and inode number of each file; None for one that is not there."""
        return self._stamps

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
                    "it goes on, with new content it encodes what is new"
                )

    def _stamp(self, file: str) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._root / file)  # noqa: PTH116 follows links, as reading does
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino
