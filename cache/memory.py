"""Files beside the caches that save work: what they say may be lost at any time, and is then found out again.

    .identities/<12 digits>.parquet   contents of a dataset's episodes, see `vla.embed.identities`
                shards.parquet        shards that were found right, see `vla.cache.checked`

Several processes may write several caches of one folder at a time. One at a time writes here; whoever finds
another at it does without.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vla.base.errors import VlaError, WriteError
from vla.base.files import remove_leftovers, write_atomically
from vla.base.lock import exclusive

FOLDER = ".identities"


def remember(path: Path, data: bytes) -> None:
    """Write a file of the memory, unless another process is at it.

    Raises:
        WriteError: the disk is full, or may not be written.
    """
    with _alone(path.parent) as alone:
        if alone:
            write_atomically(path, data)


def tidy_memory(caches: Path) -> None:
    """Delete half-written files that killed processes left in the memory of a folder of caches."""
    with _alone(caches / FOLDER):
        pass


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock and clear it up; yield False, and do neither, if another process has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder))
            remove_leftovers(folder)
            alone = True
        except WriteError:
            raise
        except VlaError:
            alone = False
        yield alone
