"""Identify episodes of a LeRobotDataset by rows, encoded images and video packets; files in parallel."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa

from vla.base.errors import DatasetError
from vla.cache.stream import Stream
from vla.embed.datasets.content import EpisodeContent
from vla.embed.datasets.decoders import missing_video
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.images import FrameError, stored_image
from vla.embed.datasets.lerobot.columns import Columns
from vla.embed.datasets.lerobot.tables import EpisodeFiles, RowBlock, Rows, check_count, scan
from vla.embed.datasets.packets import Packets, read_packets
from vla.embed.datasets.video import Timing, VideoSpan

BATCH_ROWS = 64


def lerobot_contents(
    folder: DatasetFolder,
    episodes: Sequence[EpisodeFiles],
    streams: Sequence[Stream],
    columns: Mapping[str, Columns],
    videos: Mapping[str, str],
    *,
    timing: Timing,
    workers: int,
) -> list[bytes]:
    """Return the identity of each episode, 32 bytes.

    Args:
        folder: the dataset.
        episodes: which.
        streams: all that are read.
        columns: of those that are numbers, by name.
        videos: keys of those that are videos, by name.
        timing: which frame of a video is meant.
        workers: threads.

    Raises:
        DatasetError: a file is missing or damaged, or lacks rows.
    """
    contents = [EpisodeContent(streams) for _ in episodes]
    stored = [stream for stream in streams if stream.name not in videos]
    jobs: list[Callable[[], None]] = []
    for file, positions in _by_file([episode.rows.file for episode in episodes]).items():
        here = [(episodes[k], contents[k]) for k in positions]
        jobs.append(partial(_take_rows, folder, file, here, stored, columns))
    for name, key in videos.items():
        for file, positions in _by_file([episode.videos[key].file for episode in episodes]).items():
            there = [(episodes[k].videos[key], episodes[k].length, contents[k]) for k in positions]
            jobs.append(partial(_take_packets, folder, file, name, there, timing))
    with ThreadPoolExecutor(workers, "contents") as pool:
        try:
            for done in [pool.submit(job) for job in jobs]:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [content.digest() for content in contents]


def _by_file(files: Sequence[str]) -> dict[str, list[int]]:
    grouped: dict[str, list[int]] = {}
    for position, file in enumerate(files):
        grouped.setdefault(file, []).append(position)
    return grouped


def _take_rows(
    folder: DatasetFolder,
    file: str,
    episodes: Sequence[tuple[EpisodeFiles, EpisodeContent]],
    streams: Sequence[Stream],
    columns: Mapping[str, Columns],
) -> None:
    """Take in the rows of a file's episodes, going through it once."""
    waiting = sorted(episodes, key=lambda entry: entry[0].rows.start)
    column, start = waiting[0][0].rows.column, waiting[0][0].rows.start
    whole = Rows(file, column, start, max(episode.rows.stop for episode, _ in waiting))
    found = [0] * len(waiting)
    place = start
    keys = [name for s in streams for name in (columns[s.name].names if s.name in columns else [s.key])]
    for table in scan(folder, whole, list(dict.fromkeys(keys)), BATCH_ROWS):
        number = np.arange(place, place + len(table))
        if column is not None:
            number = np.asarray(table[column].combine_chunks(), np.int64)
        place += len(table)
        for k, (episode, content) in enumerate(waiting):
            if episode.rows.start > number.max():
                break
            inside = np.flatnonzero((number >= episode.rows.start) & (number < episode.rows.stop))
            if len(inside):
                found[k] += len(inside)
                _take(RowBlock((table.take(pa.array(inside)),)), content, streams, columns, folder)
        while waiting and found[0] >= waiting[0][0].length:
            del waiting[0], found[0]
    for (episode, _), count in zip(waiting, found, strict=True):
        check_count(folder, episode.rows, count)


def _take(
    block: RowBlock,
    content: EpisodeContent,
    streams: Sequence[Stream],
    columns: Mapping[str, Columns],
    folder: DatasetFolder,
) -> None:
    for stream in streams:
        if stream.name in columns:
            content.add_numbers(stream.name, columns[stream.name].read(block, folder.name))
        else:
            encoded = (stored_image(folder, cell) for cell in block.cells(stream.key))
            content.add_images(
                stream.name,
                (image if isinstance(image, bytes) else repr(image).encode() for image in encoded),
            )


def _take_packets(
    folder: DatasetFolder,
    file: str,
    name: str,
    episodes: Sequence[tuple[VideoSpan, int, EpisodeContent]],
    timing: Timing,
) -> None:
    if not folder.has(file):
        raise DatasetError(f"{folder.name}: camera '{name}': {missing_video(file)}")
    try:
        packets: Packets = read_packets(folder.file(file))
    except FrameError as error:
        raise DatasetError(f"{folder.name}: {file} {error}") from error
    shown_s = np.sort(packets.time_s) if timing.align == "index" else None
    for span, length, content in episodes:
        due_s = timing.due_s(span, np.arange(length), shown_s)
        content.add(name, packets.needed(due_s, timing.tolerance_s))
