"""Identify episodes of a LeRobotDataset by rows, encoded images and video packets; files in parallel."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla.base.errors import DatasetError
from vla.cache.stream import Stream
from vla.embed.datasets.content import EpisodeContent
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.images import FrameError
from vla.embed.datasets.lerobot.tables import TABLE_ERRORS, EpisodeFiles, check_table, first_line, numbers
from vla.embed.datasets.packets import Packets, read_packets

BATCH_ROWS = 64


def lerobot_contents(
    folder: DatasetFolder,
    episodes: Sequence[EpisodeFiles],
    streams: Sequence[Stream],
    videos: Mapping[str, str],
    *,
    fps: float,
    tolerance_s: float,
    workers: int,
) -> list[bytes]:
    """Return the identity of each episode, 32 bytes.

    Args:
        folder: the dataset.
        episodes: which.
        streams: all that are read.
        videos: keys of those that are videos, by name.
        fps: frames a second.
        tolerance_s: how far a frame may lie from its due time [s].
        workers: threads.

    Raises:
        DatasetError: a file is missing or damaged, or lacks rows.
    """
    contents = [EpisodeContent(streams) for _ in episodes]
    stored = [stream for stream in streams if stream.name not in videos]
    jobs: list[Callable[[], None]] = []
    for file, positions in _by_file([episode.rows.files[0] for episode in episodes]).items():
        here = [(episodes[k], contents[k]) for k in positions]
        jobs.append(partial(_take_rows, folder, file, here, stored))
    for name, key in videos.items():
        for file, positions in _by_file([episode.videos[key].file for episode in episodes]).items():
            there = [(episodes[k].videos[key].start_s, episodes[k].length, contents[k]) for k in positions]
            jobs.append(partial(_take_packets, folder, file, name, there, fps, tolerance_s))
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
) -> None:
    path, column = folder.file(file), episodes[0][0].rows.column
    keys = list(dict.fromkeys([*(stream.key for stream in streams), column]))
    check_table(path, keys)
    waiting = sorted(episodes, key=lambda entry: entry[0].rows.start)
    found = [0] * len(waiting)
    try:
        with pq.ParquetFile(path) as table_file:
            for batch in table_file.iter_batches(BATCH_ROWS, columns=keys):
                table = pa.Table.from_batches([batch])
                place = np.asarray(table[column].combine_chunks(), np.int64)
                for number, (episode, content) in enumerate(waiting):
                    rows = episode.rows
                    if rows.start > place.max(initial=-1):
                        break
                    inside = np.flatnonzero((place >= rows.start) & (place < rows.stop))
                    if len(inside):
                        found[number] += len(inside)
                        _take(table.take(pa.array(inside)), content, streams, folder.name)
                while waiting and found[0] >= waiting[0][0].length:
                    del waiting[0], found[0]
                if not waiting:
                    break
    except TABLE_ERRORS as error:
        raise DatasetError(f"{path} cannot be read ({first_line(error)})") from error
    for (episode, _), count in zip(waiting, found, strict=True):
        raise DatasetError(
            f"{path} holds {count} rows with {column} from {episode.rows.start} to {episode.rows.stop - 1}, "
            f"not {episode.length}; the dataset is incomplete"
        )


def _take(table: pa.Table, content: EpisodeContent, streams: Sequence[Stream], dataset: str) -> None:
    for stream in streams:
        if stream.kind == "image":
            cells = table[stream.key].to_pylist()
            encoded = (cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells)
            content.add_images(
                stream.name,
                (image if isinstance(image, bytes) else repr(image).encode() for image in encoded),
            )
        else:
            content.add_numbers(stream.name, numbers(table, stream.key, stream.shape, dataset))


def _take_packets(
    folder: DatasetFolder,
    file: str,
    name: str,
    episodes: Sequence[tuple[float, int, EpisodeContent]],
    fps: float,
    tolerance_s: float,
) -> None:
    try:
        packets: Packets = read_packets(folder.file(file))
    except FrameError as error:
        raise DatasetError(f"{folder.name}: {file} {error}") from error
    for start_s, length, content in episodes:
        content.add(name, packets.needed(start_s + np.arange(length) / fps, tolerance_s))
