"""TensorBoard: event files in `<run>/tensorboard`; see them with `tensorboard --logdir RUN`."""

import threading
from collections.abc import Mapping
from importlib.metadata import version

from torch.utils.tensorboard import SummaryWriter

from vla.base.files import NO_ROOM
from vla.policy.training.run import RunDirectory
from vla.policy.training.trackers.tracker import Location, Tracker


class TensorBoardTracker(Tracker):
    """Writes event files; scalars of steps after `step`, left by a killed process, are purged."""

    def __init__(self, run: RunDirectory, step: int) -> None:
        self._folder = run.path / "tensorboard"
        self._former_hook, threading.excepthook = threading.excepthook, self._hear
        try:
            self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)
        except OSError:
            threading.excepthook = self._former_hook
            raise

    @property
    def location(self) -> Location:
        return Location(mode="local", version=version("tensorboard"), path=str(self._folder.absolute()))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._former_hook

    def _hear(self, ended: threading.ExceptHookArgs) -> None:
        """Leave out that the disk is full: the writing thread's next caller is told, in one line."""
        if not (isinstance(ended.exc_value, OSError) and ended.exc_value.errno in NO_ROOM):
            self._former_hook(ended)
