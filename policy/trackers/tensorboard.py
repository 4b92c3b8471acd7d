"""TensorBoard: event files in `<run>/tensorboard`; see them with `tensorboard --logdir RUN`."""

from collections.abc import Mapping
from importlib.metadata import version

from torch.utils.tensorboard import SummaryWriter

from vla.policy.run import RunDirectory
from vla.policy.trackers.tracker import Location, Tracker


class TensorBoardTracker(Tracker):
    """Writes event files; scalars of steps after `step`, left by a killed process, are purged."""

    def __init__(self, run: RunDirectory, step: int) -> None:
        self._folder = run.path / "tensorboard"
        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)

    @property
    def location(self) -> Location:
        return Location(mode="local", version=version("tensorboard"), path=str(self._folder.absolute()))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
