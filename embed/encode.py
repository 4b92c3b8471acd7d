"""The encode loop: every frame of every camera through the frozen encoder, once.

    FrameSource.read ─> cut at episodes, augment ──(a thread, some blocks ahead)────────────┐
     decode, resize (its own threads)                                                       │
                                              FrozenEncoder.encode_into, several passes at a time
                                                                          (vla.base.threads)│
    PartWriter.write, when the last frame of a shard is there <── the arrays of its shards <┘
        shards/00000.safetensors

A block is consecutive frames of one episode, and blocks are cut from its first frame on. The last digits of
a feature depend on which frames share its pass, so neither neighbours in the dataset, nor the part, nor the
place in a shard, nor where an earlier run was interrupted may decide that. A block at the border of two
shards is encoded whole, and twice if the shards are not made one after the other.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from vla.base.errors import DatasetError
from vla.base.interrupt import Signals
from vla.base.prefetch import prefetch
from vla.base.progress import Progress
from vla.base.threads import compute_threads, num_workers
from vla.cache import Augmentation
from vla.cache.part_writer import PartWriter
from vla.embed.batch_size import block_frames
from vla.embed.datasets import FrameSource
from vla.embed.datasets.content import FileWatch
from vla.embed.frozen_encoder import FrozenEncoder, Views
from vla.embed.transforms import augment

FRAMES_AHEAD = 128
"""Frames that wait for the encoder, of all variants together; 75 MB of three cameras at 256 x 256. The
decoder is a block or two further."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Frames of one episode on their way to the encoder, and what will be known of them."""

    writer: PartWriter
    shards: range
    """That are wanted and share frames with it; the block may reach beyond them."""
    frames: range
    """Counted within the part."""
    variants: Sequence[Views]
    """The frames themselves and their augmented variants, at the encoder's size."""
    arrays: dict[str, np.ndarray]
    """All streams of these frames; what needs no encoder is filled in."""


def encode_shards(
    source: FrameSource,
    contents: Sequence[bytes],
    encoder: FrozenEncoder,
    work: Sequence[tuple[PartWriter, int]],
    files: FileWatch,
    signals: Signals,
    augmentation: Augmentation,
    *,
    quiet: bool = False,
) -> None:
    """Encode and write the given shards, decoding ahead of the encoder across shard borders.

    Args:
        source: the demonstrations.
        contents: of each of its episodes.
        encoder: the frozen encoder; called from several threads.
        work: writers of parts, and shards of them; neighbours one after the other.
        files: the dataset's; no shard is written once one of them has changed.
        signals: looked at between shards.
        augmentation: of the frames.
        quiet: show no progress.
    """
    workers, written = num_workers(encoder.device), [s.name for s in encoder.writes]
    size, variants = block_frames(encoder.batch_size, len(encoder.reads)), 1 + augmentation.variants
    blocks = prefetch(
        _blocks(source, contents, encoder, work, size, augmentation),
        max(2, FRAMES_AHEAD // (size * variants)),
    )
    begun: deque[tuple[Block, list[Future[None]]]] = deque()
    filled: dict[int, dict[str, np.ndarray]] = {}
    done = 0
    signals.stop_if_asked("nothing is encoded yet")

    def finish(block: Block, passes: list[Future[None]]) -> None:
        nonlocal done
        for encoded in passes:
            encoded.result()
        writer, frames = block.writer, block.frames
        for shard in block.shards:
            there = writer.part.frame_range(shard)
            start, stop = max(there.start, frames.start), min(there.stop, frames.stop)
            if shard not in filled:
                filled[shard] = writer.allocate(shard)
            arrays = filled[shard]
            for name, values in block.arrays.items():
                arrays[name][start - there.start : stop - there.start] = values[
                    start - frames.start : stop - frames.start
                ]
            progress.update(stop - start)
            if stop == there.stop:
                files.require_unchanged()
                writer.write(shard, filled.pop(shard))
                done += 1
                signals.stop_if_asked(f"{done} shards of this run are kept, and all before it")

    total = sum(len(writer.part.frame_range(shard)) for writer, shard in work)
    with (
        Progress("embed", total, unit="frames", quiet=quiet) as progress,
        compute_threads(encoder.device, workers) as pool,
    ):
        try:
            for block in blocks:
                passes = []
                whole = dict.fromkeys(encoder.reads, range(len(block.frames)))
                for variant, views in enumerate(block.variants):
                    out = {name: block.arrays[name][:, variant] for name in written}
                    passes += [
                        pool.submit(encoder.encode_into, views, rows, out) for rows in encoder.passes(whole)
                    ]
                begun.append((block, passes))
                # Enough to do for all while the oldest is waited for.
                while sum(len(later) for _, later in list(begun)[1:]) >= workers:
                    finish(*begun.popleft())
            while begun:
                finish(*begun.popleft())
        except DatasetError:
            files.require_unchanged()  # if a file has changed, that is what is wrong
            raise


def _runs(work: Sequence[tuple[PartWriter, int]]) -> Iterator[tuple[PartWriter, range]]:
    """Join shards that follow one another."""
    first = 0
    for place, (writer, shard) in enumerate(work):
        if place + 1 == len(work) or work[place + 1] != (writer, shard + 1):
            yield writer, range(work[first][1], shard + 1)
            first = place + 1


@dataclass(frozen=True)
class _Cut:
    """One block to come."""

    content: bytes
    frames: range
    """Counted within the part."""


def _blocks(
    source: FrameSource,
    contents: Sequence[bytes],
    encoder: FrozenEncoder,
    work: Sequence[tuple[PartWriter, int]],
    size: int,
    augmentation: Augmentation,
) -> Iterator[Block]:
    """Decode and prepare frames, run after run; images of the dataset's own size are not kept."""
    firsts = dict(zip(reversed(contents), (e.first_frame for e in reversed(source.episodes)), strict=True))
    for writer, shards in _runs(work):
        for frames, cuts in _reads(writer, shards, firsts, size):
            for cut, streams in _recut(source, encoder, frames, cuts, size):
                part = writer.part
                kept = {s.name: streams[s.name] for s in part.streams if s.made_by is None}
                made = {
                    s.name: np.empty((len(cut.frames), part.variants, *s.shape), s.dtype)
                    for s in part.streams
                    if s.made_by is not None
                }
                views = {name: streams[name] for name in encoder.reads}
                variants = [
                    {camera: augment(v, cut.content, camera, k, augmentation) for camera, v in views.items()}
                    for k in range(part.variants)
                ]
                here = part.shards_of(cut.frames)
                wanted = range(max(here.start, shards.start), min(here.stop, shards.stop))
                yield Block(
                    writer=writer, shards=wanted, frames=cut.frames, variants=variants, arrays=kept | made
                )


def _reads(
    writer: PartWriter, shards: range, firsts: Mapping[bytes, int], size: int
) -> Iterator[tuple[range, list[_Cut]]]:
    """Yield the source's frames that some shards need, and how they are cut; neighbours are read as one."""
    part = writer.part
    frames = range(part.frame_range(shards[0]).start, part.frame_range(shards[-1]).stop)
    waiting, cuts = range(0), list[_Cut]()
    for number in part.episodes_of(frames):
        content, first, length = part.contents[number], int(part.firsts[number]), part.lengths[number]
        start = max(0, frames.start - first) // size * size
        stop = min(length, -(-(frames.stop - first) // size) * size)
        here = range(firsts[content] + start, firsts[content] + stop)
        if cuts and here.start != waiting.stop:
            yield waiting, cuts
            cuts = []
        waiting = range(waiting.start, here.stop) if cuts else here
        cuts += [
            _Cut(content, range(first + k, first + min(k + size, stop))) for k in range(start, stop, size)
        ]
    if cuts:
        yield waiting, cuts


def _recut(
    source: FrameSource, encoder: FrozenEncoder, frames: range, cuts: Sequence[_Cut], size: int
) -> Iterator[tuple[_Cut, dict[str, np.ndarray]]]:
    """Cut what a source reads, which pays no heed to episodes, into blocks."""
    read = source.read(frames, size, encoder.encoder.image_size)
    kept: list[dict[str, np.ndarray]] = []
    count = 0
    for cut in cuts:
        while count < len(cut.frames):
            block = next(read)
            views = {name: block.streams[name] for name in encoder.reads}
            others = {s.name: block.streams[s.name] for s in source.streams if s.kind != "image"}
            kept.append(others | views)
            count += len(block)
        joined = kept[0] if len(kept) == 1 else {k: np.concatenate([b[k] for b in kept]) for k in kept[0]}
        yield cut, {name: values[: len(cut.frames)] for name, values in joined.items()}
        count -= len(cut.frames)
        kept = [{name: values[len(cut.frames) :] for name, values in joined.items()}] if count else []
