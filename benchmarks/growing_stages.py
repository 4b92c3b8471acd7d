"""Stages of `faults.py` over caches that are there already: one grows, one is compacted.

At every moment the cache has to be readable, whole, and either as it was or as it is going to be.
"""

import shutil
from pathlib import Path

from fault_stages import Embed, write_demonstrations
from forked import PATIENCE_S, finish, fork, require, wait

BEFORE, NOW = (0, 1, 2), (1, 2, 3, 4, 5, 6)
"""Episodes of 40 frames, that is 5 shards each: one goes, four come."""
SHARDS = 5


class Grow(Embed):
    """`vla embed` of a dataset that has lost an episode and gained four."""

    name, pieces = "grow", SHARDS * (len(BEFORE) + 4)

    def __init__(self, work: Path) -> None:
        # One name, so that both make the same cache.
        self._demos, self._was, self._log = work / "now/demos", work / "was/demos", work / "log"
        write_demonstrations(self._was, self._log, BEFORE)
        write_demonstrations(self._demos, self._log, NOW)
        self._start = work / "start"
        self.embed(self._was, self._start)

    def embed(self, demos: Path, out: Path) -> None:
        command = super().command(out)
        command[command.index("--dataset") + 1] = str(demos)
        require(finish(command, self._log) == 0, self._log)

    def prepare(self, out: Path) -> None:
        super().prepare(out)
        shutil.copytree(self._start, out)

    def is_usable(self, out: Path, log: Path) -> bool:
        frames = [40 * len(episodes) for episodes in (BEFORE, NOW)]
        return wait(fork(lambda: _read(out, frames), log), PATIENCE_S) == 0


class Compact(Grow):
    """`vla compact` of the cache that has grown."""

    name, pieces = "compact", Grow.pieces + SHARDS * len(NOW)

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.embed(self._demos, self._start)

    def command(self, out: Path) -> list[str]:
        return ["compact", str(out)]


def _read(out: Path, frames: list[int]) -> None:
    """Read all bytes of a cache, in a fork."""
    from vla.cache import FeatureCache

    cache = FeatureCache(out)
    cache.require_checksums()
    if cache.num_frames not in frames:
        raise AssertionError(f"{cache.num_frames} frames")


GROWING: tuple[type[Grow] | type[Compact], ...] = (Grow, Compact)
