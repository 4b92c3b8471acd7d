"""Caches that were embedded in formats 1 and 2 and are not embedded again."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from vla.base.errors import CacheError
from vla.base.progress import say
from vla.cache import CacheSpec, DatasetIdentity, FeatureCache, version1, version2
from vla.cache.compact import copy_part
from vla.cache.part_writer import PartWriter
from vla.embed.datasets import FrameSource


def earlier_cache(folder: Path, source: FrameSource, spec: CacheSpec) -> FeatureCache | None:
    """Find a finished cache of format 1 or 2 that holds what a cache is planned to.

    They were named by the bytes of whole files: only where there are any is the dataset read for that.

    Args:
        folder: of the planned cache, beside which they lie.
        source: the dataset.
        spec: what is planned.
    """
    if (folder / "cache.json").is_file():
        return None
    old = [path for path in sorted(folder.parent.glob("*/cache.json")) if _version(path) in (1, 2)]
    due = _fingerprints(source, spec) if old else ()
    for header in old:
        if header.parent.name.rpartition("-")[2] not in due:
            continue
        try:
            cache = FeatureCache(header.parent)
            cache.require_checksums()
        except CacheError as error:
            say(f"{header.parent} is of an earlier format and damaged, it is made anew: {error}")
        else:
            return cache
    return None


def copy_cache(earlier: FeatureCache, folder: Path, spec: CacheSpec) -> None:
    """Write a cache of an earlier format as a part of the present one; nothing is encoded."""
    firsts = dict(zip(reversed(spec.contents), (e.first_frame for e in reversed(spec.episodes)), strict=True))
    first_of = torch.tensor([firsts[content] for content in spec.part.contents])
    copy_part(earlier, PartWriter(folder, spec.part, spec.dataset.path), first_of, "copy")


def _version(path: Path) -> object:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found.get("format_version") if isinstance(found, dict) else None


def _fingerprints(source: FrameSource, spec: CacheSpec) -> Sequence[str]:
    """Return what formats 1 and 2 would have called the cache."""
    files = source.files_sha256()
    dataset: DatasetIdentity = spec.dataset.model_copy(update={"content_sha256": files})
    due = [version2.fingerprint(dataset, spec.streams, spec.augmentation)]
    (encoder,) = spec.encoders.values()
    cameras = tuple(stream.name for stream in spec.streams if stream.made_by)
    if encoder.type == "siglip" and len(spec.streams) == len(cameras) + 2:  # state and action
        due.append(version1.fingerprint(dataset, encoder, cameras, spec.augmentation))
    return due
