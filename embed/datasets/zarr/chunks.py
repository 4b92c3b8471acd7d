"""Unpack the chunks of a zarr array, which are not given more memory than is due, whatever they claim."""

import struct
import zlib
from typing import Any

import numpy as np

from vla.base.errors import MissingPackageError
from vla.embed.datasets.zarr.array_metadata import ArrayMetadata

JPEGXL = "imagecodecs_jpegxl"
PACKED_SLACK = 1 << 16
"""What packing may add to a chunk that does not get smaller."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def unpack(data: bytes, metadata: ArrayMetadata) -> np.ndarray:
    """Return a chunk as an array of its shape.

    Raises:
        ValueError: it holds more or less than is due, or something else; some codecs raise other exceptions.
        MissingPackageError: what unpacks it is not installed.
    """
    codec, due, dtype = metadata.codec, metadata.chunk_bytes, metadata.numpy_dtype
    if codec is not None and codec["id"] == JPEGXL:
        return _unpack_image(data, metadata)
    if codec is None:
        plain: Any = data
    elif codec["id"] in ("zlib", "gzip"):
        plain = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, due + 1)  # 32: either of them
    else:
        if (claimed := _claimed(codec["id"], data)) != due:
            raise ValueError(f"it claims {claimed} bytes, {due} are due")
        plain = _numcodecs().get_codec({"id": codec["id"]}).decode(data)
    if len(plain) != due:
        raise ValueError(f"it holds {len(plain)} bytes, {due} are due")
    return np.frombuffer(plain, dtype).reshape(metadata.chunks, order=metadata.order)


def _claimed(codec: str, data: bytes) -> int | None:
    """Return how many bytes packed data say they are unpacked; None if they do not say it."""
    if codec in ("blosc", "lz4"):
        at = 4 if codec == "blosc" else 0
        return int.from_bytes(data[at : at + 4], "little") if len(data) >= at + 4 else None
    if data[:4] != ZSTD_MAGIC:
        return None
    header = data[4:18].ljust(14, b"\0")  # as long as it can be; RFC 8878, 3.1.1.1
    size, single, dictionary = header[0] >> 6, header[0] >> 5 & 1, (0, 1, 2, 4)[header[0] & 3]
    if not (size or single):
        return None
    kind, added = (("<B", 0), ("<H", 256), ("<I", 0), ("<Q", 0))[size]
    found: int = struct.unpack_from(kind, header, 1 + (not single) + dictionary)[0]
    return found + added


def _unpack_image(data: bytes, metadata: ArrayMetadata) -> np.ndarray:
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingPackageError("imagecodecs", "zarr") from error
    image = np.empty(tuple(size for size in metadata.chunks if size != 1), metadata.numpy_dtype)
    imagecodecs.jpegxl_decode(data, out=image)
    return image.reshape(metadata.chunks)


def _numcodecs() -> Any:
    try:
        import numcodecs
    except ImportError as error:
        raise MissingPackageError("numcodecs", "zarr") from error
    return numcodecs
