"""Who starts the runs of a suite."""

from enum import StrEnum


class Launcher(StrEnum):
    """What `vla sweep --launcher` takes."""

    LOCAL = "local"
    SLURM = "slurm"
