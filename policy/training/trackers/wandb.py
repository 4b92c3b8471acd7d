"""Weights & Biases: online where a key is known, else an offline run in `<run>/wandb` for `wandb sync`.

`WANDB_MODE`, `WANDB_PROJECT` and `WANDB_ENTITY` are honoured.
"""

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb

from vla.policy.training.run import RunDirectory
from vla.policy.training.trackers.tracker import Location, Tracker, read_locations, run_name


class WandbTracker(Tracker):
    """One W&B run; a resumed training goes on in the run of the same id."""

    def __init__(self, run: RunDirectory, config: Mapping[str, Any]) -> None:
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if _is_logged_in() else "offline")
        earlier = read_locations(run.path).get("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "vla"),
            name=run_name(run),
            # `<folder>-<id>` ends the path of an offline run, `/<id>` the address of one online.
            id=_id_of(earlier) if earlier else None,
            resume="allow" if earlier else None,
            dir=str(run.path),
            config=dict(config),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Steps begin again at the last checkpoint when training is resumed, and W&B's own step may not.
        self._run.define_metric("*", step_metric="step")
        folder = str(Path(self._run.dir).parent.absolute())
        self._location = Location(
            mode=mode, version=wandb.__version__, url=self._run.url or None, path=folder
        )

    @property
    def location(self) -> Location:
        return self._location

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log({**figures, "step": step})

    def close(self) -> None:
        self._run.finish()


def _id_of(location: Location) -> str:
    return (location.path or "").rpartition("-")[2]


def _is_logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
