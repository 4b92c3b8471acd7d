"""What each frame is to do: its `task_index`, by the dataset's table of tasks.

The list of tasks of an episode says less: GR00T writes marks such as "valid" into it, and a frame may change
its task within an episode. It counts only where a dataset has no table of tasks, or no column that refers to
it.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.lerobot.json_lines import read_json_lines, validated
from vla.embed.datasets.lerobot.tables import TABLE_ERRORS, EpisodeFiles, RowBlock, Rows, first_line, scan

TABLE, LINES = "meta/tasks.parquet", "meta/tasks.jsonl"
COLUMN = "task_index"
BATCH_ROWS = 1 << 16
Runs = tuple[tuple[int, str], ...]
"""From which frame of an episode on which text counts; the first begins at 0."""


class Task(BaseModel):
    """One line of `tasks.jsonl`."""

    task_index: Annotated[int, Field(ge=0)]
    task: str


def task_list(value: object) -> object:
    """Accept a single text, or nothing, where a list of texts is due."""
    return () if value is None else (value,) if isinstance(value, str) else value


def tasks_of(folder: DatasetFolder, episodes: Sequence[EpisodeFiles], workers: int) -> list[Runs]:
    """Return the texts of each episode.

    Rows are read only where the table has several tasks.

    Raises:
        DatasetError: a table cannot be read.
    """
    texts = _read_tasks(folder)
    if len(texts) < 2:
        only = next(iter(texts.values()), None)
        return [((0, "; ".join(episode.tasks) if only is None else only),) for episode in episodes]
    files: dict[tuple[str, str | None], list[int]] = {}
    for position, episode in enumerate(episodes):
        files.setdefault((episode.rows.file, episode.rows.column), []).append(position)
    found: list[Runs] = [()] * len(episodes)

    def read(file: tuple[str, str | None], positions: list[int]) -> None:
        rows = [episodes[position].rows for position in positions]
        whole = Rows(*file, min(r.start for r in rows), max(r.stop for r in rows))
        index = _task_index(folder, whole)
        for position, mine in zip(positions, rows, strict=True):
            here = None if index is None else index[mine.start - whole.start : mine.stop - whole.start]
            found[position] = _runs(here, texts, episodes[position].tasks)

    with ThreadPoolExecutor(workers, "tasks") as pool:
        for done in [pool.submit(read, file, positions) for file, positions in files.items()]:
            done.result()
    return found


def _runs(index: np.ndarray | None, texts: dict[int, str], listed: Sequence[str]) -> Runs:
    if index is None or not len(index):
        return ((0, "; ".join(listed)),)
    starts = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist()]
    return tuple((start, texts.get(int(index[start]), "; ".join(listed))) for start in starts)


def _task_index(folder: DatasetFolder, rows: Rows) -> np.ndarray | None:
    """Return the number of each row's task, in the order of the rows; None where the table does not say."""
    if not folder.has(rows.file):
        return None
    pieces = list(scan(folder, rows, [], BATCH_ROWS, [COLUMN]))
    block = RowBlock(tuple(pieces))
    if not pieces or not block.has(COLUMN):
        return None
    index = np.full(rows.stop - rows.start, -1, np.int64)
    values = block.values(COLUMN)
    place = (
        np.arange(len(block))
        if rows.column is None
        else block.values(rows.column).astype(np.int64) - rows.start
    )
    index[place] = values
    return index


def _read_tasks(folder: DatasetFolder) -> dict[int, str]:
    """Return the texts by number; empty where there is no table of them."""
    if folder.has(TABLE):
        path = folder.file(TABLE)
        try:
            # One file only: given a path, pyarrow would also read hive partitions out of its folders' names.
            with pq.ParquetFile(path) as file:
                table = file.read()
            texts = [
                name
                for name in table.column_names
                if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type)
            ]
            if COLUMN not in table.column_names or not texts:
                raise DatasetError(f"{path} has no columns '{COLUMN}' and 'task'; it is no table of tasks")
            return dict(zip(table[COLUMN].to_pylist(), table[texts[0]].to_pylist(), strict=True))
        except TABLE_ERRORS as error:
            raise DatasetError(f"{path} cannot be read ({first_line(error)})") from error
    if folder.has(LINES):
        path = folder.file(LINES)
        lines = [validated(path, line, Task, value) for line, value in read_json_lines(folder, LINES)]
        return {task.task_index: task.task for task in lines}
    return {}
