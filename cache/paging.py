"""Tell the kernel how the mapped pages of shards will be read."""

import ctypes
import mmap

from torch import Tensor


def expect_random_reads(tensor: Tensor) -> None:
    """Read no further pages around those that are touched; without effect where the system has no such call.

    By default every touched row of a mapped file brings its neighbours along, up to 128 KiB for 1.5.
    """
    if hasattr(mmap, "MADV_RANDOM"):
        advise_range(tensor.data_ptr(), tensor.nbytes, mmap.MADV_RANDOM)


def advise_range(start: int, length: int, advice: int) -> None:
    """Give advice about the pages that some addresses lie in; it may be ignored, so failing is no error."""
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    size = ctypes.c_size_t(start + length - first)
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), size, ctypes.c_int(advice))
