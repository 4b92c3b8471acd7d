"""Where a run's figures go beside `metrics.jsonl`: one file a tracker, imported only when asked for.

None needs an account or a network: W&B and SwanLab write offline runs where no key is known, to be
uploaded later with `wandb sync` and `swanlab sync`.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from vla.base.errors import ConfigError
from vla.policy.training.run import RunDirectory
from vla.policy.training.trackers.tracker import OnStderr, Tracker, note_location

PACKAGES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "swanlab": "swanlab",
    "trackio": "trackio",
}
"""Name of a tracker, and the package that must be installed."""


def open_tracker(name: str, run: RunDirectory, step: int, config: Mapping[str, Any]) -> Tracker | None:
    """Start reporting a run, or go on with it, and note where in `trackers.json`.

    Args:
        name: tensorboard, wandb, swanlab, trackio or none.
        run: the run directory.
        step: the step that the run stands at.
        config: shown beside the figures, tables as nested dictionaries.

    Raises:
        ConfigError: the tracker's package is not installed.
    """
    if name == "none":
        return None
    require_tracker(name)
    tracker = OnStderr(lambda: _open(name, run, step, config))
    note_location(run, name, tracker.location)
    return tracker


def require_tracker(name: str) -> None:
    """Check, before any work starts, that a tracker's package can be imported.

    Raises:
        ConfigError: it cannot; the message has the command that installs it.
    """
    if name == "none":
        return
    try:
        importlib.import_module(PACKAGES[name])
    except ImportError as error:
        raise ConfigError(
            f"tracker '{name}' needs the package {PACKAGES[name]} ({error}); "
            f"run: pip install 'vla[{name}]', or choose --tracker tensorboard"
        ) from None


def _open(name: str, run: RunDirectory, step: int, config: Mapping[str, Any]) -> Tracker:
    match name:
        case "tensorboard":
            from vla.policy.training.trackers.tensorboard import TensorBoardTracker

            return TensorBoardTracker(run, step)
        case "wandb":
            from vla.policy.training.trackers.wandb import WandbTracker

            return WandbTracker(run, config)
        case "swanlab":
            from vla.policy.training.trackers.swanlab import SwanLabTracker

            return SwanLabTracker(run, config)
        case _:
            from vla.policy.training.trackers.trackio import TrackioTracker

            return TrackioTracker(run, step, config)
