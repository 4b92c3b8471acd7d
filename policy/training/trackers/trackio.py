"""trackio: a local database, seen with `trackio show --project vla`; no account.

`TRACKIO_PROJECT`, `TRACKIO_DIR` and `TRACKIO_SPACE_ID` are honoured.
"""

import os
from collections.abc import Mapping
from typing import Any

import trackio
from trackio.utils import TRACKIO_DIR

from vla.policy.training.run import RunDirectory
from vla.policy.training.trackers.tracker import Location, Tracker, run_name


class TrackioTracker(Tracker):
    """One trackio run; a resumed training goes on in the run of the same name."""

    def __init__(self, run: RunDirectory, step: int, config: Mapping[str, Any]) -> None:
        project = os.environ.get("TRACKIO_PROJECT", "vla")
        self._run = trackio.init(
            project=project,
            name=run_name(run),
            config=dict(config),
            resume="allow" if step else "never",  # not an earlier run of the same name elsewhere
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        space = os.environ.get("TRACKIO_SPACE_ID")
        self._location = Location(
            mode="online" if space else "local",
            version=trackio.__version__,
            url=f"https://huggingface.co/spaces/{space}" if space else None,
            path=None if space else str(TRACKIO_DIR / f"{project}.db"),
        )

    @property
    def location(self) -> Location:
        return self._location

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        trackio.finish()  # the run's own finish would be followed by another when Python ends
