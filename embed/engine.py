"""From a dataset to a cache: what is there already, what is new, and the manifest over both.

open_source        the demonstrations
episode_contents   who they are
plan_cache         what is to be held of them
plan_growth        what is there, here or beside, and what is new
encode_shards      what is new
_finish            part.json of what was written, then cache.json
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from vla.base.distributed import World
from vla.base.errors import CacheError, EncoderError
from vla.base.files import remove_leftovers, write_atomically
from vla.base.interrupt import deferred
from vla.base.lock import exclusive
from vla.base.progress import say
from vla.cache import Augmentation, CacheConfig, CacheMetadata, CacheSpec, Texts
from vla.cache.checked import CheckedShards
from vla.cache.episodes import Episodes
from vla.cache.manifest import remove_old_tables
from vla.cache.memory import tidy_memory
from vla.cache.metadata import digest_of
from vla.cache.part import read_header
from vla.cache.part_writer import PartWriter
from vla.cache.reader import read_metadata
from vla.cache.texts import FILE as TEXTS
from vla.embed.batch_size import for_large_batches, settle_batch_size
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.earlier_formats import copy_cache, earlier_cache
from vla.embed.encode import encode_shards
from vla.embed.encoders.encoder import EncoderConfig
from vla.embed.frozen_encoder import FrozenEncoder
from vla.embed.growth import Growth, plan_growth
from vla.embed.half_precision import say_what_bfloat16_saves
from vla.embed.identities import episode_contents
from vla.embed.report import EmbedReport, report_of, report_of_earlier
from vla.embed.resting import say_what_rests
from vla.embed.tasks import NewTexts, embed_tasks, keep_texts


def embed(
    dataset: DatasetConfig,
    encoder: EncoderConfig,
    cache: CacheConfig,
    augmentation: Augmentation | None = None,
    notes: Mapping[str, bytes] | None = None,
    *,
    dry_run: bool = False,
) -> EmbedReport:
    """Encode into a feature cache below `cache.path` what is new in a dataset, and leave out what is gone.

    Interrupted work goes on. A finished cache of format 1 or 2 that holds the same is left as it is, and
    named.

    Args:
        dataset: the demonstrations.
        encoder: made of what, and where it runs.
        cache: where it goes.
        augmentation: further variants of each frame; None is none.
        notes: further files of the cache, by name.
        dry_run: only say what would be done.

    Raises:
        DatasetError: the demonstrations cannot be read, or change while they are.
        EncoderError: the encoder cannot be loaded, or has no text tower where language is on.
        CacheError: features are not finite.
        VlaError: another process is writing the same cache.
        Interrupted: a signal came; the shard at work was finished first.
    """
    started = time.monotonic()
    with World.join() as world, deferred() as signals:
        source = open_source(dataset, encoder.workers)
        for remark in source.remarks if world.is_main else ():
            say(f"{source.path}: {remark}")
        files = source.watch()  # before they are read: whatever changes from here on is noticed
        frozen = FrozenEncoder.load(for_large_batches(encoder), source.camera_names)
        contents = episode_contents(source, files, Path(cache.path), world)
        spec = plan_cache(source, contents, frozen, cache, augmentation or Augmentation())
        folder = Path(cache.path) / cache_name(source, encoder, spec.recipe)
        (earlier,) = world.broadcast((earlier_cache(folder, source, spec),) if world.is_main else None)
        if earlier is not None and (earlier.metadata.texts is not None or not encoder.reads_texts):
            return report_of_earlier(earlier, frozen, time.monotonic() - started, dry_run=dry_run)
        before = _finished(folder, spec)
        if before is not None:  # the same encoder, wherever it lay when it made most of the cache
            spec = replace(spec, encoders=before.encoders)
        checked = CheckedShards(folder.parent)
        if dry_run:
            growth = plan_growth(folder, spec, checked, link=False)
            texts: Texts | NewTexts | None = before.texts if before else None
        else:
            with exclusive(folder) if world.is_main else nullcontext():
                if world.is_main:
                    _remove_leftovers(folder)
                    tidy_memory(folder.parent)
                # Before the frames: a checkpoint without text tower is found out before hours of work.
                tasks = Episodes.of(spec.episodes).tasks
                there = before.texts if before else None
                if not world.is_main:
                    texts = None
                elif encoder.reads_texts:
                    texts = embed_tasks(encoder, dataset.path, folder, tasks, there)
                else:
                    texts = keep_texts(folder, tasks, there)
                # It lacks texts, and cannot be given any. Its variants, if any, are not those of now: they
                # followed from the numbers of episodes.
                if world.is_main and earlier is not None and spec.variants == 1:
                    copy_cache(earlier, folder, spec)
                growth = world.broadcast(plan_growth(folder, spec, checked) if world.is_main else None)
                images = growth.frames * len(frozen.reads) * spec.variants
                frozen.batch_size = world.broadcast(
                    settle_batch_size(frozen, encoder, images, folder) if world.is_main else None
                )
                writers = growth.writers(folder, spec)
                if world.is_main and before is None and growth.missing:
                    say_what_bfloat16_saves(encoder, frozen.device, frozen.num_weights)
                if world.is_main:
                    for writer in writers.values():
                        writer.begin()
                world.barrier()
                # A run of neighbouring shards each: files are then read in order, mostly by one rank.
                mine = [(writers[part], shard) for part, shard in world.share(growth.missing)]
                encode_shards(
                    source, contents, frozen, mine, files, signals, spec.augmentation, quiet=not world.is_main
                )
                world.barrier()
                if world.is_main:
                    _finish(folder, spec, growth, before, texts, notes or {})
                    for writer in writers.values():
                        checked.note(writer.checksums())
                    checked.save()
        if world.is_main and not dry_run:
            say_what_rests(folder)
    return report_of(folder, spec, frozen, growth, before, texts, time.monotonic() - started, dry_run=dry_run)


def plan_cache(
    source: FrameSource,
    contents: Sequence[bytes],
    encoder: FrozenEncoder,
    cache: CacheConfig,
    augmentation: Augmentation,
) -> CacheSpec:
    """Say what a cache is going to hold; its names follow from that.

    Raises:
        EncoderError: the encoder writes a stream that is called as one of the dataset.
    """
    kept = tuple(stream for stream in source.streams if stream.kind != "image")
    if taken := {stream.name for stream in encoder.writes} & {stream.name for stream in kept}:
        raise EncoderError(
            f"encoder {encoder.identity.type} writes stream '{min(taken)}', the dataset has one of that name "
            "too; call the sensor otherwise: dataset.streams"
        )
    return CacheSpec(
        dataset=source.identity(contents),
        streams=(*encoder.writes, *kept),
        encoders={encoder.identity.digest: encoder.identity},
        episodes=source.episodes,
        contents=tuple(contents),
        shard_frames=cache.shard_frames,
        augmentation=augmentation,
    )


def cache_name(source: FrameSource, encoder: EncoderConfig, recipe: str) -> str:
    """Name a cache's directory: `<dataset>-<encoder>-<recipe>`, the same when the dataset grows.

    Chosen episodes are a cache of their own, beside that of all.
    """
    chosen = source.chosen
    some = "" if chosen is None else f".{len(chosen)}-{digest_of(chosen)[:6]}"
    return f"{Path(source.path).resolve().name}{some}-{encoder.name}-{recipe}"


def _finished(folder: Path, spec: CacheSpec) -> CacheMetadata | None:
    """Return what the cache said of itself until now; None if it said nothing that can be read."""
    try:
        found = read_metadata(folder)
    except CacheError:
        return None
    return found if found.recipe == spec.recipe else None


def _remove_leftovers(folder: Path) -> None:
    for place in (folder, *folder.glob("parts/*"), *folder.glob("parts/*/shards")):
        remove_leftovers(place)
    for begun in folder.glob("parts/*.linking"):
        shutil.rmtree(begun)


def _finish(
    folder: Path,
    spec: CacheSpec,
    growth: Growth,
    before: CacheMetadata | None,
    texts: Texts | NewTexts | None,
    notes: Mapping[str, bytes],
) -> None:
    """Finish the parts that were written, and write the manifest if it changes."""
    writers = growth.writers(folder, spec)
    for writer in writers.values():
        writer.finish()
    for part in growth.parts:
        if read_header(folder, part) is None:  # all shards were there, and a kill came before this
            PartWriter(folder, part).finish()
    texts = texts.write(folder) if isinstance(texts, NewTexts) else texts
    same = (
        before is not None and not writers and (before.fingerprint, before.texts) == (spec.fingerprint, texts)
    )
    if not (same and before is not None and _lists(before, spec, growth)):
        spec.write_manifest(folder, growth.parts, texts)
    remove_old_tables(folder)
    for part_folder in growth.superfluous:
        shutil.rmtree(part_folder)
    if texts is None:
        (folder / TEXTS).unlink(missing_ok=True)
    for file, data in notes.items():
        path = folder / file
        if not path.is_file() or path.read_bytes() != data:
            write_atomically(path, data)


def _lists(before: CacheMetadata, spec: CacheSpec, growth: Growth) -> bool:
    """Tell whether a manifest lists these episodes, under their numbers, and these parts."""
    numbers = [episode.index for episode in spec.episodes]
    return before.episodes.number.tolist() == numbers and before.parts == tuple(p.part for p in growth.parts)
