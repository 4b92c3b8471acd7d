"""Read a feature cache. Shards are memory-mapped: opening is instant, and pages come as they are touched."""

import json
import shlex
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float16, Float32, Int64
from pydantic import ValidationError
from torch import Tensor

from vla.base.errors import CacheError
from vla.base.files import sha256_of
from vla.base.strict import explain
from vla.cache.finite import values_not_finite
from vla.cache.header import header_problems
from vla.cache.metadata import FORMAT_VERSION, CacheMetadata
from vla.cache.paging import expect_random_reads
from vla.cache.shard import map_shard, repair_command, repair_hint
from vla.cache.texts import read_language

MAX_HEADER_BYTES = 256 << 20
"""Of `cache.json`; a million episodes take 100 MB."""
OTHER_BYTES = "has other bytes than cache.json promises (sha256 differs): a flipped bit, or it was exchanged"


class FeatureCache:
    """A finished feature cache.

    Args:
        folder: a cache directory, or a folder that holds exactly one.

    Attributes:
        folder: the cache directory.
        metadata: the contents of `cache.json`.

    Raises:
        CacheError: there is no cache, it is unfinished or its header is not valid.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = find_cache(Path(folder))
        self.metadata = read_metadata(self.folder)

    @property
    def camera_names(self) -> tuple[str, ...]:
        return self.metadata.camera_names

    @property
    def num_frames(self) -> int:
        return self.metadata.num_frames

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors, that is memory needed to hold the cache."""
        return sum(tensor.nbytes for shard in self._shards for tensor in shard.values())

    @cached_property
    def _shards(self) -> list[dict[str, Tensor]]:
        files = [self.folder / shard.file for shard in self.metadata.shards]
        return [map_shard(path, self.metadata.layout(k)) for k, path in enumerate(files)]

    def not_finite(self) -> str | None:
        """Name the first value that is NaN or infinite; None if there is none. Reads everything."""
        for number, shard in enumerate(self._shards):
            for what in values_not_finite(shard):
                return f"{self.folder / self.metadata.shards[number].file}: {what}"
        return None

    def require_checksums(self) -> None:
        """Read every shard once and compare it with its checksum.

        Raises:
            CacheError: a shard's bytes are not those that were written; the message names it.
        """
        wrong = checksum_damage(self.folder, self.metadata, range(len(self.metadata.shards)))
        if wrong:
            path = self.folder / self.metadata.shards[wrong[0]].file
            raise CacheError(f"shard {path} {OTHER_BYTES}; {repair_hint(self.folder)}")

    def expect_random_reads(self) -> None:
        """Prepare for `features` of frames all over the cache; reading from start to end becomes slower."""
        for shard in self._shards:
            for tensor in shard.values():
                expect_random_reads(tensor)

    @property
    def variants(self) -> int:
        """Variants of each frame; number 0 is the frame itself."""
        return 1 + self.metadata.augmentation.variants

    def features(
        self, camera: str, frames: Int64[Tensor, "n"], variants: Int64[Tensor, "n"]
    ) -> Float16[Tensor, "n tokens dim"]:
        """Return one camera's features of frames and variants with these numbers, out of the mapped files."""
        source = self._shards[0][f"features.{camera}"]
        gathered = torch.empty((len(frames), *source.shape[2:]), dtype=source.dtype)
        shard_of = frames // self.metadata.frames_per_shard
        row = frames % self.metadata.frames_per_shard
        for shard in sorted(set(shard_of.tolist())):
            here = shard_of == shard
            gathered[here] = self._shards[shard][f"features.{camera}"][row[here], variants[here]]
        return gathered

    def row(self, frame: int) -> dict[str, Tensor]:
        """Return all that is stored of one frame, by tensor name."""
        shard, row = divmod(frame, self.metadata.frames_per_shard)
        return {name: tensor[row] for name, tensor in self._shards[shard].items()}

    def all_features(self, camera: str) -> Float16[Tensor, "frames variants tokens dim"]:
        """Return one camera's features of all frames, in memory."""
        return torch.cat([shard[f"features.{camera}"] for shard in self._shards])

    def state(self) -> Float32[Tensor, "frames state_dim"]:
        """Return the robot state of every frame."""
        return torch.cat([shard["state"] for shard in self._shards])

    def action(self) -> Float32[Tensor, "frames action_dim"]:
        """Return the action of every frame."""
        return torch.cat([shard["action"] for shard in self._shards])

    def language(self) -> Float32[Tensor, "tasks dim"]:
        """Return the features of the task texts, in the order of `metadata.tasks`; read and checked now.

        Raises:
            CacheError: the cache has none, or they are damaged; the message says what to run.
        """
        return read_language(self.folder, self.metadata)


def find_cache(folder: Path) -> Path:
    """Return the cache directory that `folder` is, or the only one that it holds.

    Raises:
        CacheError: there is none, an unfinished one, or more than one.
    """
    make_one = f"make one: vla embed --dataset DIR --out {shlex.quote(str(folder))}"
    if not folder.is_dir():
        raise CacheError(f"no feature cache at {folder}; {make_one}")
    if (folder / "cache.json").is_file():
        return folder
    found = sorted(path.parent for path in folder.glob("*/cache.json"))
    if len(found) == 1:
        return found[0]
    if found:
        names, first = ", ".join(path.name for path in found), shlex.quote(str(found[0]))
        raise CacheError(f"{folder} holds {len(found)} caches ({names}); name one: --cache {first}")
    if (folder / "shards").is_dir() or list(folder.glob("*/shards")):
        raise CacheError(f"the cache in {folder} is not finished; run the same `vla embed` again, it goes on")
    raise CacheError(f"no feature cache in {folder}; {make_one}")


def read_metadata(folder: Path) -> CacheMetadata:
    """Read and check `cache.json`.

    Raises:
        CacheError: it is not JSON, of another format version, or not of the right form.
    """
    path = folder / "cache.json"
    again = f"delete it and make it again, nothing is encoded twice: {repair_command(folder)}"
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise CacheError(f"{path} has more than {MAX_HEADER_BYTES >> 20} MiB; {again}")
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CacheError(f"{path} cannot be read ({error}); {again}") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise CacheError(
            f"{path} has format version {str(version)[:20]}, this vla reads {FORMAT_VERSION}; "
            f"install the vla that wrote it, or {again}"
        )
    try:
        metadata = CacheMetadata.model_validate(raw)
    except ValidationError as error:
        raise CacheError(f"{path}: {explain(error, CacheMetadata)[:300]}; {again}") from error
    if wrong := next(header_problems(metadata), None):
        raise CacheError(f"{path} {wrong}; {again}")
    return metadata


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
