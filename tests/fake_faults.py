"""Faults that tests inject: full disks, places that may not be written, damaged files, signals."""

import ctypes
import hashlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, but for what holds times."""
    times = ".identities/shards.parquet"
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.as_posix().endswith(times))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def flip_bit(path: Path, position: int = -1) -> None:
    """Change one bit of a file; the last byte's unless told."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def truncate(path: Path, lost: int = 10) -> None:
    """Cut bytes off a file's end."""
    path.write_bytes(path.read_bytes()[:-lost])


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` [byte]: writing fails as on a full disk, by EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take away the right to write into a folder, from root too.

    Root's power to pass over modes is a capability of the thread; it is laid down and taken up again.
    """
    folder.chmod(0o555)
    try:
        with _without_dac_override():
            yield
    finally:
        folder.chmod(0o755)


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


CAP_DAC_OVERRIDE = 1


@contextmanager
def _without_dac_override() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = _Header(0x20080522, 0), (_Data * 2)()
    if libc.capget(ctypes.byref(header), data):
        pytest.skip("capabilities cannot be read here")
    before = data[0].effective
    data[0].effective = before & ~(1 << CAP_DAC_OVERRIDE)
    if libc.capset(ctypes.byref(header), data):
        pytest.skip("capabilities cannot be laid down here")
    try:
        yield
    finally:
        data[0].effective = before
        libc.capset(ctypes.byref(header), data)
