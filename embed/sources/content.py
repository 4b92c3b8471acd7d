"""Identify a dataset by what is in it, wherever it lies."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vla.files import sha256_of


def content_sha256(root: Path, folders: Sequence[str]) -> str:
    """Hash the relative names and bytes of all files below some folders of `root`.

    Hidden files are left out: downloads leave bookkeeping of their own beside the data.
    """
    files = sorted(
        path
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter lock
        digests = list(pool.map(sha256_of, files))
    whole = hashlib.sha256()
    for path, digest in zip(files, digests, strict=True):
        whole.update(f"{path.relative_to(root).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()
