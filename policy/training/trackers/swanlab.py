"""SwanLab: online where a key is known, else an offline run in `<run>/swanlog` for `swanlab sync`.

`SWANLAB_MODE` and `SWANLAB_PROJ_NAME` are honoured.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import swanlab

from vla.policy.training.run import RunDirectory
from vla.policy.training.trackers.tracker import Location, Tracker, has_key, run_name


class SwanLabTracker(Tracker):
    """One SwanLab run; offline, a resumed training is a second run of the same name."""

    def __init__(self, run: RunDirectory, config: Mapping[str, Any]) -> None:
        logged_in = has_key("SWANLAB_API_KEY", Path.home() / ".swanlab" / ".netrc")
        mode: Any = os.environ.get("SWANLAB_MODE") or ("online" if logged_in else "offline")
        folder = run.path.absolute() / "swanlog"
        folder.mkdir(exist_ok=True)
        earlier = set(folder.iterdir())
        self._run = swanlab.init(
            project=os.environ.get("SWANLAB_PROJ_NAME", "vla"),
            name=run_name(run),
            log_dir=str(folder),
            config=dict(config),
            mode=mode,
        )
        new = sorted(path for path in folder.iterdir() if path not in earlier and path.is_dir())
        self._location = Location(
            mode=mode,
            version=swanlab.__version__,
            url=self._run.url if mode == "online" else None,  # asking an offline run for it raises
            path=str(new[-1] if new else folder),
        )

    @property
    def location(self) -> Location:
        return self._location

    def log(self, figures: Mapping[str, float], step: int) -> None:
        swanlab.log(dict(figures), step=step)

    def close(self) -> None:
        swanlab.finish()
