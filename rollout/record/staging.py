"""The folder in which a recording grows: `<out>.partial/`.

    plan.json                  what is being recorded
    attempts/000000.parquet    one file a finished attempt
    dataset/                   the data set, while it is being put together
    before/                    the data set that it continues, for the moment in which they change places

Files appear whole or not at all, so whatever is there after a crash can be used.
"""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from vla.base.errors import DatasetError
from vla.base.files import remove_leftovers, sync_folder, write_atomically, write_json, writing
from vla.rollout.record.attempt import Outcome, read_outcome
from vla.rollout.record.plan import Plan

BEFORE = "before"


def staging_folder(out: Path) -> Path:
    """Return where the recording of an output grows."""
    return out.with_name(out.name + ".partial")


def restore(out: Path) -> None:
    """Put a data set back that was about to change places with the one that continues it: a kill came."""
    if not out.exists() and (before := staging_folder(out) / BEFORE).is_dir():
        before.rename(out)


class Staging:
    """The staging folder of one output; only the holder of the output's lock may use it.

    Args:
        out: where the finished data set will lie.
        plan: what is being recorded.

    Raises:
        DatasetError: the folder holds attempts of another plan.
    """

    def __init__(self, out: Path, plan: Plan) -> None:
        self._out = out
        self._root = staging_folder(out)
        self._attempts = self._root / "attempts"
        self._check(plan)
        self._attempts.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._root)
        remove_leftovers(self._attempts)
        shutil.rmtree(self.dataset, ignore_errors=True)
        write_json(self._root / "plan.json", plan.model_dump(mode="json"))

    @property
    def dataset(self) -> Path:
        """Where the data set is put together."""
        return self._root / "dataset"

    def path(self, number: int) -> Path:
        """Return the file of an attempt."""
        return self._attempts / f"{number:06d}.parquet"

    def outcomes(self) -> dict[int, Outcome]:
        """Return the outcomes of the finished attempts by their number."""
        found = {}
        for path in sorted(self._attempts.glob("*.parquet")):
            try:
                found[int(path.stem)] = read_outcome(pq.read_schema(path))
            except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
                path.unlink()  # damaged: it is made again, with the same bytes
        return found

    def save(self, number: int, table: bytes) -> Outcome:
        """Keep a finished attempt."""
        write_atomically(self.path(number), table)
        return read_outcome(pq.read_schema(self.path(number)))

    def publish(self) -> None:
        """Move the data set to its place, in one step where it continues none, then delete the folder.

        Raises:
            WriteError: the disk has no room for it after all.
        """
        with writing(self._out):
            for path in [*self.dataset.rglob("*"), self.dataset]:
                sync_folder(path)  # files are synced in the same way
            if self._out.is_dir() and any(self._out.iterdir()):
                self._out.rename(self._root / BEFORE)
            self.dataset.rename(self._out)
            sync_folder(self._out.parent)
        shutil.rmtree(self._root)

    def _check(self, plan: Plan) -> None:
        path = self._root / "plan.json"
        if not path.exists() or not any(self._attempts.glob("*.parquet")):
            return  # nothing lies here that another plan could spoil
        try:
            found = Plan.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise DatasetError(
                f"{path} does not describe a recording; delete {self._root} or choose another --out"
            ) from error
        before, now = found.model_dump(mode="json"), plan.model_dump(mode="json")
        if before != now:
            key, old, new = first_difference(before, now)
            raise DatasetError(
                f"{self._root} holds an unfinished recording with {key} = {old!r}, this one has {new!r}; "
                f"delete it, go back to {old!r}, or choose another --out"
            )


def first_difference(
    before: dict[str, Any], now: dict[str, Any], prefix: str = ""
) -> tuple[str, object, object]:
    """Return the dotted name of the first setting that differs, and its two values."""
    key = next(key for key in [*before, *now] if before.get(key) != now.get(key))
    old, new = before.get(key), now.get(key)
    if isinstance(old, dict) and isinstance(new, dict):
        return first_difference(old, new, f"{prefix}{key}.")
    return f"{prefix}{key}", old, new
