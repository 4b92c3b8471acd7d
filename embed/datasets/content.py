"""Identify a dataset by what is in it, wherever it lies."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

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
