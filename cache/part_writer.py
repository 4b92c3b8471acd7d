"""Write a part shard by shard, so that interrupted work goes on where it stopped.

writer = PartWriter(folder, spec)
writer.begin()                         # whoever is killed from here on leaves a part that is known
for shard in writer.missing_shards():
    arrays = writer.allocate(shard)    # of frames spec.frame_range(shard); positions are filled in
    ...                                # fill arrays[stream]
    writer.write(shard, arrays)
writer.finish()                        # checksums and moments; part.json comes last
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vla.base.errors import CacheError
from vla.base.files import remove_leftovers, sha256_of, write_atomically, write_json
from vla.cache.part import HEADER, SHARDS, PartHeader, PartSpec, header_of, read_checksums, read_header
from vla.cache.shard import POSITIONS, damage, map_shard, not_finite, write_shard, wrong_checksums
from vla.cache.statistics import has_moments, moments_of
from vla.cache.tables import digest_rows, table_bytes

WrongOf = Callable[[Sequence[tuple[Path, str]]], list[int]]


class PartWriter:
    """Fill the folder of one part; finished shards of an earlier run are kept.

    Args:
        folder: the cache's.
        part: what is to be written.
        dataset: its name, for messages.
        numbers: what the dataset calls the part's episodes, for messages; empty counts them.
    """

    def __init__(self, folder: Path, part: PartSpec, dataset: str = "", numbers: Sequence[int] = ()) -> None:
        self.folder, self.part, self._dataset = folder, part, dataset
        self._numbers = numbers or range(len(part.contents))

    def begin(self) -> None:
        """Say what the part is going to be, before its first shard."""
        self.part.write_plan(self.folder)

    def remove_leftovers(self) -> None:
        """Delete half-written files of killed processes; only whoever holds the cache's lock may."""
        for place in (self.folder, self._root, self._root / "shards"):
            remove_leftovers(place)

    def missing_shards(self, wrong_of: WrongOf = wrong_checksums) -> list[int]:
        """Shards that are not there yet, or are damaged.

        Headers and sizes are held against the plan. A finished part has a checksum of every shard, and all
        bytes are held against it.

        Args:
            wrong_of: which of some shards, given with their checksums, have other bytes.
        """
        planned = range(self.part.num_shards)
        wrong = {k for k in planned if damage(self.path(k), self.part.layout(k)) is not None}
        if read_header(self.folder, self.part) is not None:
            sums = read_checksums(self.folder, self.part.part)
            whole = [k for k in planned if k not in wrong]
            wrong |= {whole[k] for k in wrong_of([(self.path(k), sums[k]) for k in whole])}
        return sorted(wrong)

    def allocate(self, shard: int) -> dict[str, np.ndarray]:
        """Return the arrays of a shard: streams to be filled, and the positions of its frames."""
        arrays = self.part.layout(shard).allocate()
        return arrays | dict(zip(POSITIONS, self.part.positions(shard), strict=True))

    def write(self, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one shard.

        Args:
            shard: its number.
            arrays: those of `allocate`, filled.

        Raises:
            CacheError: a value is NaN or infinite; nothing is written.
        """
        for name, row in not_finite(arrays):
            episode, frame = (int(column[row]) for column in self.part.positions(shard))
            raise CacheError(
                f"{self._dataset}: '{name}' is not finite at episode {self._numbers[episode]}, frame {frame}",
                folder=self.folder,
                remedy="not finite",
            )
        write_shard(self.path(shard), self.part.layout(shard), arrays)

    def finish(self) -> PartHeader:
        """Compute checksums and moments of the finished shards and write them down.

        Raises:
            CacheError: a shard is missing or damaged.
        """
        self.begin()
        shards = range(self.part.num_shards)
        mapped = [map_shard(self.path(k), self.part.layout(k)) for k in shards]
        sums = table_bytes({"sha256": digest_rows([bytes.fromhex(sha256_of(self.path(k))) for k in shards])})
        table = self._root / SHARDS
        if not table.is_file() or table.read_bytes() != sums:
            write_atomically(table, sums)
        moments = {
            stream.name: moments_of(stream, (shard[stream.name].numpy() for shard in mapped))
            for stream in self.part.streams
            if has_moments(stream)
        }
        header = header_of(self.part, self.folder, moments)
        if read_header(self.folder, self.part) != header:
            write_json(self._root / HEADER, header.model_dump(mode="json"))
        return header

    def path(self, shard: int) -> Path:
        """Return where a shard lies."""
        return self.folder / self.part.part.file(shard)

    def checksums(self) -> list[tuple[Path, str]]:
        """Return each shard of the finished part with its SHA-256."""
        sums = read_checksums(self.folder, self.part.part)
        return [(self.path(shard), sha256) for shard, sha256 in enumerate(sums)]

    @property
    def _root(self) -> Path:
        return self.folder / self.part.part.folder
