"""What is asked of SLURM for each run: the table [slurm] of a suite file, and `--slurm key=value`."""

import datetime
import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from vla.base.errors import ConfigError
from vla.base.strict import StrictModel, explain

# Of these, status and continuing depend.
OURS = ("comment", "job-name", "output", "error", "open-mode", "signal", "array", "nodes", "ntasks", "time")


class SlurmConfig(StrictModel):
    """One job a run; each has this."""

    partition: str = ""
    """Empty is the cluster's default."""
    time: Annotated[int, Field(ge=5)] = 240
    """Time limit [min], or as SLURM spells it: "1-12:00:00". A run that reaches it is saved and goes on in
    the queue. SLURM gives notice up to 150 s before: in less than 5 min a run might come to nothing."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """0 trains on the CPU."""
    cpus: Annotated[int, Field(ge=1)] = 4
    memory: Annotated[float, Field(ge=0)] = 0
    """Main memory [GB]; 0 is the partition's default."""
    setup: tuple[str, ...] = ()
    """Lines of shell before the run, such as "module load cuda"."""
    extra: dict[str, str | int | bool] = Field(default_factory=dict)
    """Further `#SBATCH --key=value`, such as {"account": "robots"}; true gives a bare `--key`."""
    poll_s: Annotated[float, Field(ge=0.5)] = 15
    """How often SLURM is asked how the jobs stand [s]."""

    @field_validator("time", mode="before")
    @classmethod
    def _minutes(cls, value: Any) -> Any:
        if isinstance(value, datetime.time):  # TOML's own notion of 01:30:00
            value = value.isoformat()
        return minutes(value) if isinstance(value, str) else value

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        dashed = {key.replace("_", "-"): True if one == "true" else one for key, one in value.items()}
        for key in OURS:
            if key in dashed:
                raise ValueError(f"'{key}' is given by the sweep")
        return dashed


def with_options(config: SlurmConfig, options: Sequence[str]) -> SlurmConfig:
    """Return a configuration with `key=value` changed; `extra.account=robots` gives an `#SBATCH` line.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    tables = config.model_dump()
    for option in options:
        key, given, value = option.partition("=")
        if not given:
            raise ConfigError(f"--slurm {option} is not key=value, such as --slurm partition=gpu")
        table, dot, name = key.partition(".")
        if table == "extra" and dot:
            tables["extra"][name] = value
        else:
            tables[key] = (value,) if key == "setup" else value
    try:
        return SlurmConfig.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(f"--slurm: {explain(error, SlurmConfig)}") from None


def minutes(time: str) -> int:
    """Turn SLURM's spelling of a duration into minutes, rounded up.

    >>> minutes("90"), minutes("01:30:00"), minutes("1-12"), minutes("0:30")
    (90, 90, 2160, 1)
    """
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if len(parts) > 3:
        raise ValueError("a time is minutes, H:MM:SS or D-HH:MM:SS")
    if dash:  # D-HH[:MM[:SS]]
        hours, mins, seconds = (*parts, 0, 0)[:3]
    else:  # M, M:SS or H:MM:SS
        hours, mins, seconds = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    return math.ceil((int(days or 0) * 24 + hours) * 60 + mins + seconds / 60)
