"""The bytes of an HDF5 file on their way to libhdf5, which is not given any that it would never end to read.

Values of variable length lie in global heaps. libhdf5 (2.0.0) goes through a heap by the lengths that its
entries claim, and where they lead nowhere it goes on for ever, in C, where no signal is heeded. So each
heap is gone through here before.

    heap     "GCOL", version, 3 bytes, length; then entries up to there; lengths have 8 bytes by default
    entry    number, references, 4 bytes, length of the data; the data, padded to 8 bytes
    number 0 what is left of the heap: its length is that of the whole entry; too little for one is left bare
"""

import io
import os
import re
import struct
from pathlib import Path
from typing import Any

SIGNATURE = re.compile(b"GCOL\x01")
HEAP, ENTRY = struct.Struct("<8xQ"), struct.Struct("<H6xQ")
MAX_ENTRIES = 1 << 16
"""Their numbers have 16 bits."""
MAX_METADATA = 1 << 16
"""A heap's beginning comes in a read of 4 KiB, or with what lies before it; larger ones are images."""


class Hdf5Bytes(io.RawIOBase):
    """A file for h5py to read, in the place of its path.

    Args:
        path: of the file, which is opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._file = path, path.open("rb", buffering=0)

    def __repr__(self) -> str:
        """Return the path; h5py takes this for the name of the file."""
        return str(self._path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer to its end.

        Raises:
            OSError: the file ends before, or a global heap that begins there is damaged.
        """
        view, start, count = memoryview(buffer), self._file.tell(), 0
        while count < len(view):
            if not (more := self._file.readinto(view[count:])):
                raise OSError(f"the file ends before byte {start + len(view)}")
            count += more
        if count <= MAX_METADATA:
            first = max(0, start - 4)  # libhdf5 joins what it reads: a signature may lie across
            for found in SIGNATURE.finditer(self._at(first, start + count + 4 - first)):
                self._check_heap(first + found.start())
        return count

    def _at(self, start: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, start)

    def _check_heap(self, start: int) -> None:
        """Go through a heap as libhdf5 is going to.

        Raises:
            OSError: its end cannot be reached.
        """
        damaged = OSError(f"the global heap at byte {start} is damaged")
        try:
            (length,) = HEAP.unpack(self._at(start, HEAP.size))
            at, end = start + HEAP.size, start + length
            for _ in range(MAX_ENTRIES + 1):
                if at + ENTRY.size > end:
                    return
                number, claimed = ENTRY.unpack(self._at(at, ENTRY.size))
                whole = ENTRY.size + -(-claimed // 8) * 8 if number else claimed
                if whole < ENTRY.size or at + whole > end:
                    raise damaged
                at += whole
        except (struct.error, OverflowError) as error:  # the file ends first
            raise damaged from error
        raise damaged
