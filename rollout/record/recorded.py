"""A finished recording that is continued: what its attempts came to, and its episodes."""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla.base.errors import DatasetError
from vla.embed.datasets.lerobot.writer import TASKS_PATH, EpisodeTable
from vla.rollout.record.attempt import IMAGE_COLUMN, Outcome, histogram
from vla.rollout.record.plan import Plan
from vla.rollout.record.staging import first_difference

MADE_BY = "meta/vla.json"
OF_ALL_EPISODES = ("episode_index", "index", "task_index")
"""Columns that depend on the episodes before; they are written anew."""


class Recorded:
    """The data set of an earlier `vla record`.

    Args:
        folder: of the data set; it is read only.
        plan: of the recording that continues it.

    Attributes:
        outcomes: of all its attempts by number, failures that were left out among them.
        numbers: the attempts that became its episodes, in order.
        frames: how many there are.

    Raises:
        DatasetError: it was not made by `vla record`, was made with other settings, or was changed since.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        made_by = _read(folder / MADE_BY)
        before = {key: made_by.get(key) for key in Plan.model_fields}
        now = plan.model_dump(mode="json")
        if before != now:
            key, old, new = first_difference(before, now)
            raise DatasetError(
                f"{folder} was recorded with {key} = {old!r}, this one has {new!r}; choose another --out, "
                "and train on both: vla train --cache A --cache B"
            )
        try:
            success = {int(row["seed"]) - plan.seed: bool(row["success"]) for row in made_by["episodes"]}
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{folder / MADE_BY} does not list its episodes; choose another --out"
            ) from error
        self.numbers = list(success)
        files = [pq.read_metadata(path) for path in self._files()]
        found, self.frames = sum(f.num_row_groups for f in files), sum(f.num_rows for f in files)
        if (
            not success
            or found != len(success)
            or _read(folder / "meta/info.json").get("total_episodes") != found
        ):
            raise DatasetError(
                f"{folder} has {found} episodes, {MADE_BY} lists {len(success)}: it was changed since it was "
                "recorded; choose another --out"
            )
        self.outcomes = {
            number: Outcome(
                seed=plan.seed + number, success=success.get(number, False), max_stage=0, histograms={}
            )
            for number in range(max(success) + 1)
        }

    def episodes(self) -> Iterator[EpisodeTable]:
        """Read the episodes, one at a time; their images are decoded to be counted."""
        texts = pq.read_table(self.folder / TASKS_PATH).to_pandas()
        text_of = dict(zip(texts["task_index"], texts.index, strict=True))
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            for path in self._files():
                file = pq.ParquetFile(path)
                for group in range(file.num_row_groups):
                    whole = file.read_row_group(group).replace_schema_metadata()
                    table = whole.drop_columns(OF_ALL_EPISODES)
                    images = [name for name in table.column_names if name.startswith(IMAGE_COLUMN)]
                    yield EpisodeTable(
                        frames=table,
                        histograms={name: _counted(table[name], pool) for name in images},
                        task=text_of[whole["task_index"][0].as_py()],
                    )

    def _files(self) -> list[Path]:
        return sorted((self.folder / "data").glob("chunk-*/file-*.parquet"))


def _counted(images: pa.ChunkedArray, pool: ThreadPoolExecutor) -> Any:
    """Return how many pixels of each channel have each value, [3, 256]."""
    return sum(pool.map(lambda png: histogram(np.asarray(Image.open(io.BytesIO(png)))), _bytes(images)))


def _bytes(images: pa.ChunkedArray) -> list[bytes]:
    return [image["bytes"] for image in images.to_pylist()]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path} cannot be read: only what vla record made can be continued; choose another --out"
        ) from error
    if not isinstance(found, dict):
        raise DatasetError(f"{path} is no JSON object; choose another --out")
    return found
