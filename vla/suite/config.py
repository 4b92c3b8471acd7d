"""What a suite file asks for: `suite.toml`.

name = "per_view_dim"
config = "../pipeline.toml"        # base configuration, relative to this file
seeds = [0, 1]

[grid]
"policy.per_view_dim" = [96, 192]  # one run a combination and seed

[[run]]                            # and any named runs
name = "wide"
set = { "policy.n_emb" = 512 }
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from vla.base.errors import ConfigError
from vla.base.strict import StrictModel, explain
from vla.suite.slurm.options import SlurmConfig

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Settings = dict[str, Any]
"""Values by dotted key, such as {"policy.per_view_dim": 96}."""

GIVEN_BY_THE_SWEEP = {"train.out", "train.seed", "train.device", "encoder.device", "cache.path"}


class NamedRun(StrictModel):
    """One run that is no point of the grid."""

    name: Name
    set: Settings = Field(default_factory=dict)

    @field_validator("set", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        return flatten(value) if isinstance(value, Mapping) else value


class SuiteConfig(StrictModel):
    """The whole of a suite file."""

    name: Name
    config: str = "pipeline.toml"
    """Base configuration, relative to the suite file."""
    out: str = ""
    """The suite directory; empty is runs/<name>."""
    cache: str = ""
    """The feature cache that all runs share; empty takes the base configuration's."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    set: Settings = Field(default_factory=dict)
    """Settings of all runs."""
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """Values by dotted key: every combination is a run."""
    run: tuple[NamedRun, ...] = ()
    devices: tuple[str, ...] = ()
    """Empty is every CUDA device, or else the CPU."""
    jobs: Annotated[int, Field(ge=1)] = 1
    """Runs side by side on each device."""
    rollout: bool = False
    """Roll each run's policy out when it is trained, with the base configuration's `[rollout]`."""
    slurm: SlurmConfig = SlurmConfig()
    """What each run asks for on a cluster, with `--launcher slurm`."""

    @field_validator("grid", "set", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        return flatten(value) if isinstance(value, Mapping) else value

    @field_validator("grid")
    @classmethod
    def _not_empty(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for key, choices in value.items():
            if not choices:
                raise ValueError(f"'{key}' has no values")
        return value


def read_suite(path: Path) -> SuiteConfig:
    """Read and check a suite file.

    Raises:
        ConfigError: it is missing, no TOML, or has an unknown key or wrong value.
    """
    try:
        suite = SuiteConfig.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise ConfigError(
            f"no suite file {path}; write one with `name`, `config` and [grid], as in examples/"
        ) from None
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, SuiteConfig)}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    for key in (*suite.set, *suite.grid, *(key for run in suite.run for key in run.set)):
        if key in GIVEN_BY_THE_SWEEP:
            raise ConfigError(
                f"{path}: '{key}' cannot be set for a run; the suite has seeds, devices, cache and out"
            )
    return suite


def flatten(tables: Mapping[str, Any], prefix: str = "") -> Settings:
    """Turn nested tables into values by dotted key.

    >>> flatten({"policy": {"n_emb": 8}, "train.lr": 0.1})
    {'policy.n_emb': 8, 'train.lr': 0.1}
    """
    flat: Settings = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def label(value: Any) -> str:
    """Spell a value so that it can stand in a folder's name.

    >>> label([1, 2]), label("google/siglip"), label(3e-4)
    ('1-2', 'google-siglip', '0.0003')
    """
    text = "-".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
