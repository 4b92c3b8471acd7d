"""What an earlier command left: the settings of a run or a policy, and the place for its rollouts."""

import re
from pathlib import Path
from typing import Any

from vla.base.errors import ConfigError
from vla.config import PipelineConfig, read_tables
from vla.rollout.rollout_config import EnvConfig


def default_rollout_folder(settings: PipelineConfig, policy: Path) -> Path:
    """Return where a rollout goes that names no folder: in the run, named by whatever it may differ in."""
    from vla.policy.training.run import find_run

    chosen, run = settings.rollout, find_run(policy)
    own_env = saved_tables(policy).get("env", {}).get("id", EnvConfig().id)
    name = f"seed{chosen.seed}_episodes{chosen.episodes}"
    name += f"_steps{chosen.num_steps}" if chosen.num_steps else ""
    name += "_raw" if chosen.weights == "raw" else ""
    name += f"_{_label(settings.env.id)}" if settings.env.id != own_env else ""
    name += f"_{_label(chosen.task)}" if chosen.task else ""
    if run:
        return run / "eval" / f"rollout_{policy.parent.name}_{name}"
    if policy.parent.name == "snapshots":  # downloaded: that folder belongs to the Hub's cache
        return Path("runs") / policy.parents[1].name.rpartition("--")[2] / "eval" / name
    return policy / "eval" / name


def _label(text: str) -> str:
    """Spell a text so that it can stand in a folder's name."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")[:40]


def saved_tables(policy: Path) -> dict[str, Any]:
    """Return the configuration that a policy was trained with, its encoder's name at least."""
    from vla.policy.agent import read_config
    from vla.policy.training.run import find_policy, find_run

    folder = find_policy(policy)
    run = find_run(folder)
    settings = next((p for p in (folder, run) if p and (p / "pipeline.toml").is_file()), None)
    tables = read_tables(settings / "pipeline.toml") if settings else {}
    encoder = read_config(folder).encoder
    table = tables.get("encoder", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{run}/pipeline.toml: 'encoder' is a value, not a table")
    named = {"id": encoder.id, "pool": encoder.pooling}
    revision = {"revision": encoder.revision} if encoder.revision else {}
    return {**tables, "encoder": {**table, **named, **revision}}


def run_tables(run: Path) -> dict[str, Any]:
    """Return the configuration that an existing run was started with."""
    from vla.policy.training.run import RunDirectory

    return read_tables(RunDirectory.open(run).config)
