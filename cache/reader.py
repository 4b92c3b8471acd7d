"""Read a feature cache. Shards are mapped as they are touched: opening takes no time and little memory."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from pydantic import ValidationError
from torch import Tensor

from vla.base.errors import CacheError
from vla.base.strict import explain
from vla.cache import version1, version2
from vla.cache.checked import forget_checks
from vla.cache.frames import Frames
from vla.cache.header import header_problems
from vla.cache.manifest import Manifest
from vla.cache.metadata import FORMAT_VERSION, CacheMetadata
from vla.cache.part import read_checksums
from vla.cache.shard import not_finite, wrong_checksums
from vla.cache.stream import Stream
from vla.cache.texts import read_texts

MAX_HEADER_BYTES = 256 << 20
"""Of `cache.json`; in formats 1 and 2 a million episodes took 100 MB."""
OTHER_BYTES = "has other bytes than cache.json promises (sha256 differs): a flipped bit, or it was exchanged"


class FeatureCache:
    """A finished feature cache, of format 3, 2 or 1.

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
        self._frames = Frames(self.folder, self.metadata)

    @property
    def num_frames(self) -> int:
        return self.metadata.num_frames

    @property
    def variants(self) -> int:
        """Variants of each frame; number 0 is the frame itself."""
        return self.metadata.variants

    @property
    def nbytes(self) -> int:
        """Bytes of all streams, that is memory needed to hold the cache."""
        return self.nbytes_of(self.streams)

    def nbytes_of(self, streams: Iterable[str]) -> int:
        """Return the bytes of some streams, given by name."""
        found = [self.streams[name] for name in streams]
        return self.num_frames * sum(
            stream.nbytes * (1 if stream.made_by is None else self.variants) for stream in found
        )

    def files(self) -> list[Path]:
        """Return the shards that hold its frames."""
        parts = self.metadata.parts
        return [self.folder / parts[part].file(number) for part, number in self._frames.shards()]

    def rows(
        self, name: str, frames: Int64[Tensor, "n"], variants: Int64[Tensor, "n"] | None = None
    ) -> Tensor:
        """Return one stream of frames with these numbers, [n, *shape], out of the mapped files.

        Args:
            name: of the stream.
            frames: numbers, in any order.
            variants: which variant of each, of what an encoder wrote; None takes the frames themselves.
        """
        return self._frames.rows(self.streams[name], frames, variants)

    def jpeg_files(self, name: str, frames: Int64[Tensor, "n"]) -> tuple[np.ndarray, np.ndarray]:
        """Return a stream that is kept as JPEG files as they are: bytes, and where each file ends."""
        return self._frames.jpeg_files(name, frames)

    def all(self, name: str) -> Tensor:
        """Return one stream of all frames, [frames, *shape] or [frames, variants, *shape], in memory."""
        return torch.cat(list(self._frames.pieces(name, self._frames.runs)))

    def frame(self, number: int) -> dict[str, Tensor]:
        """Return all streams of one frame, [*shape] or [variants, *shape]."""
        (part,), (row,) = self._frames.places(np.array([number]))
        shard, row = divmod(int(row), self.metadata.parts[part].frames_per_shard)
        tensors = self._frames.shard(int(part), shard)
        return {name: tensors[tensor][row] for name, tensor in self.metadata.tensor_names.items()}

    def text_features(self) -> Float32[Tensor, "tasks dim"]:
        """Return the features of the task texts, in the order of `metadata.tasks`; read and checked now.

        Raises:
            CacheError: the cache has none, or they are damaged.
        """
        return read_texts(self.folder, self.metadata)

    def not_finite(self) -> str | None:
        """Name the first value that is NaN or infinite; None if there is none. Reads everything."""
        table, runs = self.metadata.episodes, self._frames.runs
        for name, stream in self.streams.items():
            if stream.dtype == "uint8":
                continue
            first = 0
            for piece in self._frames.pieces(name, runs):
                for _, row in not_finite({name: piece}):
                    episode = int(table.find(np.array([first + row]))[0])
                    frame = first + row - int(table.first_frame[episode])
                    at = f"episode {table.number[episode]}, frame {frame}"
                    return f"{self.folder}: '{name}' is not finite at {at}"
                first += len(piece)
        return None

    def require_checksums(self) -> None:
        """Read every shard that holds its frames once and compare it with its checksum.

        Raises:
            CacheError: a shard's bytes are not those that were written; the message names it.
        """
        wrong = checksum_damage(self.folder, self.metadata, self._frames.shards())
        if wrong:
            part, number = wrong[0]
            path = self.folder / self.metadata.parts[part].file(number)
            raise CacheError(f"shard {path} {OTHER_BYTES}", folder=self.folder, remedy="mend")

    def expect_random_reads(self) -> None:
        """Prepare for `rows` of frames all over the cache; reading from start to end becomes slower."""
        self._frames.expect_random_reads()


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
    if any((folder / name).is_dir() or list(folder.glob(f"*/{name}")) for name in ("parts", "shards")):
        raise CacheError(f"the cache in {folder} is not finished", folder=folder, remedy="finish")
    raise CacheError(f"no feature cache in {folder}", folder=folder, remedy="make")


def read_metadata(folder: Path) -> CacheMetadata:
    """Read and check `cache.json` and the table of episodes, of format 3, 2 or 1.

    Raises:
        CacheError: it is not JSON, of another format version, or not of the right form.
    """
    path = folder / "cache.json"
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise _bad_header(path, f"has more than {MAX_HEADER_BYTES >> 20} MiB")
        text = path.read_bytes()
        raw = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise _bad_header(path, f"cannot be read ({error})") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    models: dict[int, type[version1.Header] | type[version2.Header] | type[Manifest]]
    models = {1: version1.Header, 2: version2.Header, FORMAT_VERSION: Manifest}
    model = models.get(version) if isinstance(version, int) else None
    if model is None:
        found = f"has format version {str(version)[:20]}, this vla reads {FORMAT_VERSION}, 2 and 1"
        raise _bad_header(path, f"{found}; install the vla that wrote it")
    try:
        header = model.model_validate(raw)
    except ValidationError as error:
        raise _bad_header(path, explain(error, model)[:300]) from error
    if isinstance(header, Manifest):
        try:
            metadata = header.metadata(folder)
        except CacheError as error:
            if path.read_bytes() != text:  # another list of episodes has just taken its place
                return read_metadata(folder)
            raise _bad_header(folder / header.episodes.file, str(error)) from error
    else:
        assert isinstance(header, version1.Header | version2.Header)
        metadata = header.metadata()
        if wrong := next(header.problems(metadata), None):
            raise _bad_header(path, wrong)
    if wrong := next(header_problems(metadata), None):
        raise _bad_header(path, wrong)
    return metadata


def _bad_header(path: Path, what: str) -> CacheError:
    return CacheError(f"{path} {what}", folder=path.parent, remedy="rewrite")


def checksum_damage(
    folder: Path, metadata: CacheMetadata, shards: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return which of some shards, by part and number, are missing or have other bytes than was written.

    Raises:
        CacheError: a part's checksums cannot be read.
    """
    sums = {part: read_checksums(folder, metadata.parts[part]) for part in {part for part, _ in shards}}
    files = [(folder / metadata.parts[part].file(number), sums[part][number]) for part, number in shards]
    if wrong := wrong_checksums(files):
        forget_checks(folder)
    return [shards[k] for k in wrong]
