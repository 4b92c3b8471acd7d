"""What a cache lacks of a dataset: which parts are there, here or beside, and what has to be encoded.

the dataset's episodes, by content
   ├── in a part of this cache                      named by the manifest, as it is
   ├── in a part of a cache of the same recipe      the part is linked into this cache (copied where links
   │   below the same folder of caches              cannot be made), nothing is encoded
   └── nowhere                                      one further part
episodes of parts that the dataset has no more: left out of the manifest; the part stays
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vla.base.files import sync_folder, writing
from vla.cache import CacheSpec
from vla.cache.checked import CheckedShards
from vla.cache.part import PARTS, PartSpec, read_header, read_plan
from vla.cache.part_writer import PartWriter


@dataclass(frozen=True, kw_only=True)
class Growth:
    """From what is there to what the dataset has."""

    parts: tuple[PartSpec, ...]
    """Those that the manifest will name, in order; the last ones may hold no episode of the dataset."""
    missing: tuple[tuple[int, int], ...]
    """Part, by its place in `parts`, and shard: what has to be encoded."""
    new: int
    """Episodes that are in no part yet; the same one twice counts once."""
    linked: tuple[str, ...]
    """Parts that other caches have."""
    superfluous: tuple[Path, ...]
    """Folders of parts that are damaged or were never finished, and hold nothing that the others do not."""

    @property
    def frames(self) -> int:
        """Frames that have to be encoded."""
        return sum(len(self.parts[part].frame_range(shard)) for part, shard in self.missing)

    def writers(self, folder: Path, spec: CacheSpec) -> dict[int, PartWriter]:
        """Return a writer of each part that lacks something."""
        lacking = sorted({part for part, _ in self.missing})
        return {k: _writer(folder, self.parts[k], spec) for k in lacking}


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A part that is there, finished or begun."""

    folder: Path
    """The cache it lies in."""
    spec: PartSpec
    finished: bool

    @cached_property
    def contents(self) -> frozenset[bytes]:
        return frozenset(self.spec.contents)


def plan_growth(folder: Path, spec: CacheSpec, checked: CheckedShards, *, link: bool = True) -> Growth:
    """Compare the parts that are there with what a cache is going to hold.

    Shards of these parts are checked: headers and sizes, and all bytes by checksum once a part is finished,
    unless their files are as they were when that was done before.
    A part with a damaged shard is mended if the dataset still has all episodes in it, else it is left
    alone. A part that was begun is finished if no other one has any of its episodes.

    Args:
        folder: of the cache.
        spec: what it is going to hold.
        checked: shards that are known to be right.
        link: link parts of other caches into this one; else only say which.
    """
    wanted = frozenset(spec.lengths)
    own = _known_parts(folder, spec)
    siblings = sorted(path for path in folder.parent.glob(f"*-{spec.recipe}") if path != folder)
    others = [part for path in siblings for part in _known_parts(path, spec) if part.finished]
    finished, begun = ([part for part in own if part.finished is which] for which in (True, False))
    remaining, chosen, linked = set(wanted), dict[str, tuple[PartSpec, list[int]]](), list[str]()
    for candidates in (finished, others, begun):
        for part in _most_first(candidates, remaining):
            if not part.finished and not part.contents <= remaining:
                continue
            missing = PartWriter(part.folder, part.spec).missing_shards(checked.wrong)
            if missing and not part.contents <= wanted:
                continue
            if part.folder != folder:
                linked.append(part.spec.id)
                if link:
                    link_part(part.folder, folder, part.spec)
            chosen[part.spec.id] = (part.spec, missing)
            remaining -= part.contents
    if remaining:
        new = spec.part_of(tuple(content for content in spec.lengths if content in remaining))
        chosen[new.id] = (new, _writer(folder, new, spec).missing_shards())
    order = {content: place for place, content in enumerate(spec.lengths)}
    used = sorted(chosen.values(), key=lambda part: min(order[c] for c in part[0].contents if c in order))
    unused = [part for part in own if part.spec.id not in chosen]
    kept = [
        p.spec for p in unused if p.finished and not PartWriter(folder, p.spec).missing_shards(checked.wrong)
    ]
    parts = (*(part for part, _ in used), *kept)
    held = {content for part in parts for content in part.contents}
    return Growth(
        parts=parts,
        missing=tuple((k, shard) for k, (_, missing) in enumerate(used) for shard in missing),
        new=len(remaining),
        linked=tuple(linked),
        superfluous=tuple(
            folder / part.spec.part.folder
            for part in unused
            if part.spec not in kept and part.contents <= held
        ),
    )


def link_part(source: Path, folder: Path, part: PartSpec) -> None:
    """Make a part of another cache one of this cache, without copying a byte where the file system can.

    Raises:
        WriteError: the disk is full, or may not be written.
    """
    target = folder / part.part.folder
    begun = target.with_name(f"{part.id}.linking")
    with writing(target):
        for old in (begun, target):  # what a killed process left, or an unfinished part of the same episodes
            if old.exists():
                shutil.rmtree(old)
        (begun / "shards").mkdir(parents=True)
        for path in sorted(p for p in (source / part.part.folder).rglob("*") if p.is_file()):
            place = begun / path.relative_to(source / part.part.folder)
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)
        begun.rename(target)
        sync_folder(target.parent)


def _known_parts(folder: Path, spec: CacheSpec) -> list[_Known]:
    found = []
    for path in sorted((folder / PARTS).glob("*")):
        part = read_plan(path, spec.recipe, spec.streams, spec.variants)
        if part is not None:
            found.append(_Known(folder=folder, spec=part, finished=read_header(folder, part) is not None))
    return found


def _most_first(parts: Sequence[_Known], remaining: set[bytes]) -> Iterator[_Known]:
    """Yield, again and again, the part that has most of what remains; `remaining` may shrink meanwhile."""
    left = list(parts)
    while left:
        best = max(left, key=lambda part: len(part.contents & remaining))
        if best.contents.isdisjoint(remaining):
            return
        left.remove(best)
        yield best


def _writer(folder: Path, part: PartSpec, spec: CacheSpec) -> PartWriter:
    return PartWriter(folder, part, spec.dataset.path, spec.numbers(part.contents))
