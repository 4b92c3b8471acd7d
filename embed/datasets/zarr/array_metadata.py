"""What a zarr array says of itself, in format 2 (`.zarray`) or 3 (`zarr.json`); the parts that vla reads.

chunks        all of one shape; those at the ends reach beyond the array
chunk names   format 2: 3.0.0 or 3/0/0; format 3: c/3/0/0
packed by     at most one of CODECS
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vla.base.errors import DatasetError
from vla.embed.datasets.zarr.storage import ARRAY, Storage

CODECS = ("blosc", "zstd", "lz4", "zlib", "gzip", "imagecodecs_jpegxl")
# numpy evaluates what a comma in a dtype stands beside: SyntaxError, as of code.
METADATA_ERRORS = (
    *(ValidationError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(RecursionError, SyntaxError, OverflowError),
)
MAX_METADATA_BYTES = 1 << 20
MAX_CHUNK_BYTES = 1 << 30
"""Chunks are unpacked whole."""
Sizes = Annotated[tuple[Annotated[int, Field(ge=0, lt=1 << 40)], ...], Field(min_length=1, max_length=8)]


class ArrayMetadata(BaseModel):
    """An array, whichever format it is in."""

    model_config = ConfigDict(frozen=True, strict=True)
    shape: Sizes
    chunks: Sizes
    dtype: str
    order: Literal["C", "F"] = "C"
    codec: dict[str, Any] | None = None
    """What unpacks its chunks, as numcodecs is told."""
    separator: Literal[".", "/"] = "."
    prefix: str = ""

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def chunk_bytes(self) -> int:
        return math.prod(self.chunks) * self.numpy_dtype.itemsize

    def file(self, index: Sequence[int]) -> str:
        """Name the file of a chunk, relative to the array."""
        return self.prefix + self.separator.join(map(str, index))

    def first_axis(self, file: str) -> int | None:
        """Return the number along the first axis of a chunk, given by its name; None if it is no chunk."""
        number = file.removeprefix(self.prefix).split(self.separator, maxsplit=1)[0]
        return int(number) if number.isdecimal() and number.isascii() else None


def read_metadata(storage: Storage, array: str) -> ArrayMetadata:
    """Read and check the metadata of an array.

    Raises:
        DatasetError: there are none, or they are not of the form that vla reads.
    """
    file = next((file for file in ARRAY if storage.has(f"{array}/{file}")), ARRAY[0])
    name = f"{storage.dataset}: {array}/{file}"
    try:
        told = json.loads(storage.read(f"{array}/{file}", MAX_METADATA_BYTES))
        values = _format2(told) if file == ".zarray" else _format3(told)
        found = ArrayMetadata.model_validate(
            {key: value for key, value in values.items() if value is not None}
        )
        kind = found.numpy_dtype.kind
    except _NotRead as error:
        raise DatasetError(f"{name} {error}; write it again with {', '.join(CODECS)} or none") from error
    except METADATA_ERRORS as error:
        raise DatasetError(f"{name} does not describe an array that vla reads ({error})"[:300]) from error
    if kind not in "fiub" or len(found.chunks) != len(found.shape) or 0 in found.chunks:
        raise DatasetError(f"{name}: {found.dtype} {list(found.shape)} is no array of numbers")
    if found.chunk_bytes > MAX_CHUNK_BYTES:
        raise DatasetError(
            f"{name} claims chunks of {found.chunk_bytes >> 20} MiB; vla reads up to {MAX_CHUNK_BYTES >> 20}"
        )
    return found


class _NotRead(Exception):
    """An array is packed in a way that vla does not unpack."""


def _format2(told: dict[str, Any]) -> dict[str, Any]:
    if told.get("filters"):
        raise _NotRead(f"uses filter '{told['filters'][0].get('id')!s:.40}', which vla does not read")
    codec = told.get("compressor")
    if codec is not None and codec.get("id") not in CODECS:
        raise _NotRead(f"is packed by '{codec.get('id')!s:.40}', which vla does not unpack")
    return {
        "shape": tuple(told["shape"]),
        "chunks": tuple(told["chunks"]),
        "dtype": told["dtype"],
        "order": told.get("order"),
        "codec": codec,
        "separator": told.get("dimension_separator"),
    }


def _format3(told: dict[str, Any]) -> dict[str, Any]:
    endian, codec, order = "<", None, "C"
    for step in told["codecs"]:
        name, settings = step["name"], step.get("configuration") or {}
        name = name.removeprefix("numcodecs.")
        if name == "bytes":
            endian = ">" if settings.get("endian") == "big" else "<"
        elif name in CODECS and codec is None:
            codec = {"id": name}
        else:
            raise _NotRead(f"is packed by '{name!s:.40}', which vla does not unpack")
    if told["chunk_grid"]["name"] != "regular":
        raise _NotRead("has chunks of several shapes")
    encoding = told.get("chunk_key_encoding") or {}
    default = encoding.get("name", "default") == "default"
    separator = (encoding.get("configuration") or {}).get("separator") or ("/" if default else ".")
    return {
        "shape": tuple(told["shape"]),
        "chunks": tuple(told["chunk_grid"]["configuration"]["chunk_shape"]),
        "dtype": np.dtype(told["data_type"]).newbyteorder(endian).str,
        "order": order,
        "codec": codec,
        "separator": separator,
        "prefix": f"c{separator}" if default else "",
    }
