"""Read a feature cache. Shards are memory-mapped: opening is instant, and pages come as they are touched."""

import ctypes
import json
import mmap
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float32, Int64
from pydantic import ValidationError
from torch import Tensor

from vla.base.errors import CacheError
from vla.base.files import sha256_of
from vla.base.strict import explain
from vla.cache import version1
from vla.cache.header import header_problems
from vla.cache.metadata import FORMAT_VERSION, CacheMetadata, fingerprint
from vla.cache.shard import map_shard, not_finite
from vla.cache.stream import Stream
from vla.cache.texts import read_texts

MAX_HEADER_BYTES = 256 << 20
"""Of `cache.json`; a million episodes take 100 MB."""
OTHER_BYTES = "has other bytes than cache.json promises (sha256 differs): a flipped bit, or it was exchanged"


class FeatureCache:
    """A finished feature cache, of format 2 or 1.

    Args:
        folder: a cache directory, or a folder that holds exactly one.

    Attributes:
        folder: the cache directory.
        metadata: the contents of `cache.json`.
        streams: what it holds of each frame, by name.

    Raises:
        CacheError: there is no cache, it is unfinished or its header is not valid.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = find_cache(Path(folder))
        self.metadata = read_metadata(self.folder)
        self.streams: dict[str, Stream] = {stream.name: stream for stream in self.metadata.streams}
        self._tensors = self.metadata.tensor_names

    @property
    def num_frames(self) -> int:
        return self.metadata.num_frames

    @property
    def variants(self) -> int:
        """Variants of each frame; number 0 is the frame itself."""
        return self.metadata.variants

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors, that is memory needed to hold the cache."""
        return sum(tensor.nbytes for shard in self._shards for tensor in shard.values())

    @cached_property
    def _shards(self) -> list[dict[str, Tensor]]:
        files = [self.folder / shard.file for shard in self.metadata.shards]
        return [map_shard(path, self.metadata.layout(k)) for k, path in enumerate(files)]

    def rows(
        self, name: str, frames: Int64[Tensor, "n"], variants: Int64[Tensor, "n"] | None = None
    ) -> Tensor:
        """Return one stream of frames with these numbers, [n, *shape], out of the mapped files.

        Args:
            name: of the stream.
            frames: numbers, in any order.
            variants: which variant of each, of what an encoder wrote; None takes the frames themselves.
        """
        stream, tensor = self.streams[name], self._tensors[name]
        gathered = torch.empty((len(frames), *stream.shape), dtype=stream.torch_dtype)
        shard_of = frames // self.metadata.frames_per_shard
        row = frames % self.metadata.frames_per_shard
        for shard in sorted(set(shard_of.tolist())):
            here, source = shard_of == shard, self._shards[shard][tensor]
            if stream.made_by is None:
                gathered[here] = source[row[here]]
            else:
                variant = 0 if variants is None else variants[here]
                gathered[here] = source[row[here], variant]
        return gathered

    def all(self, name: str) -> Tensor:
        """Return one stream of all frames, [frames, *shape] or [frames, variants, *shape], in memory."""
        return torch.cat([shard[self._tensors[name]] for shard in self._shards])

    def frame(self, number: int) -> dict[str, Tensor]:
        """Return all streams of one frame, [*shape] or [variants, *shape]."""
        shard, row = divmod(number, self.metadata.frames_per_shard)
        return {name: self._shards[shard][tensor][row] for name, tensor in self._tensors.items()}

    def text_features(self) -> Float32[Tensor, "tasks dim"]:
        """Return the features of the task texts, in the order of `metadata.tasks`; read and checked now.

        Raises:
            CacheError: the cache has none, or they are damaged.
        """
        return read_texts(self.folder, self.metadata)

    def not_finite(self) -> str | None:
        """Name the first value that is NaN or infinite; None if there is none. Reads everything."""
        for number, shard in enumerate(self._shards):
            for name, episode, frame in not_finite(shard):
                where = f"'{name}' is not finite at episode {episode}, frame {frame}"
                return f"{self.folder / self.metadata.shards[number].file}: {where}"
        return None

    def require_checksums(self) -> None:
        """Read every shard once and compare it with its checksum.

        Raises:
            CacheError: a shard's bytes are not those that were written; the message names it.
        """
        wrong = checksum_damage(self.folder, self.metadata, range(len(self.metadata.shards)))
        if wrong:
            path = self.folder / self.metadata.shards[wrong[0]].file
            raise CacheError(f"shard {path} {OTHER_BYTES}", folder=self.folder, remedy="mend")

    def expect_random_reads(self) -> None:
        """Prepare for `rows` of frames all over the cache; reading from start to end becomes slower.

        By default every touched row of a mapped file brings its neighbours along, up to 128 KiB for 1.5.
        """
        if not hasattr(mmap, "MADV_RANDOM"):
            return
        for shard in self._shards:
            for tensor in shard.values():
                advise_range(tensor.data_ptr(), tensor.nbytes, mmap.MADV_RANDOM)


def advise_range(start: int, length: int, advice: int) -> None:
    """Give advice about the pages that some addresses lie in; it may be ignored, so failing is no error."""
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    size = ctypes.c_size_t(start + length - first)
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), size, ctypes.c_int(advice))


def find_cache(folder: Path) -> Path:
    """Return the cache directory that `folder` is, or the only one that it holds.

    Raises:
        CacheError: there is none, an unfinished one, or more than one.
    """
    if not folder.is_dir():
        raise CacheError(f"no feature cache at {folder}", folder=folder, remedy="make")
    if (folder / "cache.json").is_file():
        return folder
    found = sorted(path.parent for path in folder.glob("*/cache.json"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise CacheError(f"{folder} holds {len(found)} caches ({names})", folder=found[0], remedy="choose")
    if (folder / "shards").is_dir() or list(folder.glob("*/shards")):
        raise CacheError(f"the cache in {folder} is not finished", folder=folder, remedy="finish")
    raise CacheError(f"no feature cache in {folder}", folder=folder, remedy="make")


def read_metadata(folder: Path) -> CacheMetadata:
    """Read and check `cache.json`, of format 2 or 1.

    Raises:
        CacheError: it is not JSON, of another format version, or not of the right form.
    """
    path = folder / "cache.json"
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise _bad_header(path, f"has more than {MAX_HEADER_BYTES >> 20} MiB")
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _bad_header(path, f"cannot be read ({error})") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version not in (1, FORMAT_VERSION):
        found = f"has format version {str(version)[:20]}, this vla reads {FORMAT_VERSION} and 1"
        raise _bad_header(path, f"{found}; install the vla that wrote it")
    model: type[version1.Header] | type[CacheMetadata] = version1.Header if version == 1 else CacheMetadata
    try:
        header = model.model_validate(raw)
        metadata = header.metadata() if isinstance(header, version1.Header) else header
    except ValidationError as error:
        raise _bad_header(path, explain(error, model)[:300]) from error
    if wrong := next(header_problems(metadata, _due_fingerprint(metadata)), None):
        raise _bad_header(path, wrong)
    return metadata


def _due_fingerprint(metadata: CacheMetadata) -> str:
    if metadata.format_version == 1 and metadata.encoder is not None:
        return version1.fingerprint(
            metadata.dataset, metadata.encoder, metadata.encoded, metadata.augmentation
        )
    return fingerprint(metadata.dataset, metadata.streams, metadata.augmentation)


def _bad_header(path: Path, what: str) -> CacheError:
    return CacheError(f"{path} {what}", folder=path.parent, remedy="rewrite")


def checksum_damage(folder: Path, metadata: CacheMetadata, shards: Iterable[int]) -> list[int]:
    """Return which of some shards are missing, or have other bytes than `cache.json` promises."""
    numbers = list(shards)

    def is_wrong(number: int) -> bool:
        shard = metadata.shards[number]
        try:
            return sha256_of(folder / shard.file) != shard.sha256
        except OSError:
            return True

    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter lock
        wrong = pool.map(is_wrong, numbers)
        return [number for number, bad in zip(numbers, wrong, strict=True) if bad]
