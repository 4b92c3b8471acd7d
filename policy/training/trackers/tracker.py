"""What training asks of a tracker, and where a run's tracker can be found: `<run>/trackers.json`."""

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path

from vla.base.files import write_json
from vla.base.strict import StrictModel
from vla.policy.training.run import RunDirectory


class Location(StrictModel):
    """Where a person finds what a tracker has recorded."""

    mode: str
    """How it records: local, offline, online, …"""
    version: str
    """Of the tracker's package."""
    url: str | None = None
    path: str | None = None


class Tracker(ABC):
    """Receives the figures of one run."""

    @property
    @abstractmethod
    def location(self) -> Location:
        """Where the figures can be seen."""

    @abstractmethod
    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Record figures, named like `train/loss`, at a step."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is left."""


class OnStderr(Tracker):
    """Keeps what a tracker prints off stdout, where a command's result belongs.

    Args:
        open_tracker: makes the tracker; may print too.
    """

    def __init__(self, open_tracker: Callable[[], Tracker]) -> None:
        with redirect_stdout(sys.stderr):
            self._tracker = open_tracker()

    @property
    def location(self) -> Location:
        return self._tracker.location

    def log(self, figures: Mapping[str, float], step: int) -> None:
        with redirect_stdout(sys.stderr):
            self._tracker.log(figures, step)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self._tracker.close()


def note_location(run: RunDirectory, name: str, location: Location) -> None:
    """Write a tracker's location into the run's `trackers.json`, beside those of other trackers."""
    noted = {**read_locations(run.path), name: location}
    write_json(
        run.path / "trackers.json", {name: entry.model_dump(mode="json") for name, entry in noted.items()}
    )


def read_locations(run: Path) -> dict[str, Location]:
    """Return where each tracker of a run can be found; empty if none is noted."""
    path = run / "trackers.json"
    if not path.is_file():
        return {}
    return {name: Location.model_validate(entry) for name, entry in json.loads(path.read_bytes()).items()}


def run_name(run: RunDirectory) -> str:
    """Return a run's name for people: its folder's."""
    return run.path.absolute().name


def has_key(variable: str, *files: Path) -> bool:
    """Return whether an account's key is set in the environment or kept in one of some files."""
    return bool(os.environ.get(variable)) or any(file.is_file() for file in files)
