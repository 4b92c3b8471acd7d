"""What an earlier command left: the settings of a run or a policy, and the place for its rollouts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla.base.errors import ConfigError
from vla.base.kept_encoder import kept_encoder
from vla.config import PipelineConfig, read_tables
from vla.matching import HERE
from vla.rollout.rollout_config import EnvConfig


def default_rollout_folder(settings: PipelineConfig, policy: Path) -> Path:
    """Return where a rollout goes that names no folder: in the run, named by whatever it may differ in."""
    from vla.policy.training.run import find_run

    chosen, run = settings.rollout, find_run(policy)
    own_env = saved_tables(policy).get("env", {}).get("id", EnvConfig().id)
    name = f"seed{chosen.seed}_episodes{chosen.episodes}"
    name += f"_steps{chosen.num_steps}" if chosen.num_steps else ""
    name += f"_temperature{chosen.temperature:g}" if chosen.temperature is not None else ""
    name += f"_{chosen.execution.type}" if chosen.execution.type != "chunk" else ""
    name += "_raw" if chosen.weights == "raw" else ""
    name += f"_{_label(settings.env.id)}" if settings.env.id != own_env else ""
    name += f"_{_label(chosen.task)}" if chosen.task else ""
    name += f"_{_label(chosen.cache)}" if chosen.cache else ""
    if run:
        return run / "eval" / f"rollout_{policy.parent.name}_{name}"
    if policy.parent.name == "snapshots":  # downloaded: that folder belongs to the Hub's cache
        return Path("runs") / policy.parents[1].name.rpartition("--")[2] / "eval" / name
    return policy / "eval" / name


def _label(text: str) -> str:
    """Spell a text so that it can stand in a folder's name."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")[:40]


def policy_settings(
    policy: Path, options: Mapping[str, Any], assignments: Sequence[str] = (), file: Path | None = None
) -> PipelineConfig:
    """Resolve the configuration of a command that takes a trained policy, over what that was trained with.

    Args:
        policy: a run, a checkpoint or a policy folder.
        options: values by dotted key; None values were not given.
        assignments: `--set` arguments.
        file: `--config`.

    Raises:
        ConfigError: a key of `[policy]` is set, which would change nothing, or as of `PipelineConfig.load`.
    """
    for key in (*options, *assignments):
        name = key.partition("=")[0].strip()
        if name.partition(".")[0] == "policy":
            raise ConfigError(
                f"{name} is part of the trained policy and stays as it is; train another, or set what "
                "[rollout] has for live policies, such as rollout.num_steps and rollout.temperature"
            )
    return PipelineConfig.load(file, options, assignments, saved_tables(policy))


def saved_tables(policy: Path) -> dict[str, Any]:
    """Return the configuration that a policy was trained with; encoder and policy are its own.

    The arithmetic of its encoder is left to the device: a GPU embeds in bfloat16, a CPU may roll out in
    float32.
    """
    from vla.embed.encoders.encoder_family import encoder_config
    from vla.policy.saved_policy import read_config
    from vla.policy.training.run import find_policy, find_run

    folder = find_policy(policy)
    run, config = find_run(folder), read_config(folder)
    settings = next((p for p in (folder, run) if p and (p / "pipeline.toml").is_file()), None)
    tables = read_tables(settings / "pipeline.toml") if settings else {}
    table = tables.get("encoder", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{settings}/pipeline.toml: 'encoder' is a value, not a table")
    here = {key: table[key] for key in HERE if key in table}
    if kept := kept_encoder(folder, run):
        here["id"] = str(kept)
    encoders = [encoder_config(identity, **here) for identity in config.encoders.values()]
    own = {"encoder": encoders[0].model_dump(mode="json", exclude_none=True)} if encoders else {}
    return {**tables, "policy": config.policy.model_dump(mode="json", exclude_none=True), **own}


def run_tables(run: Path) -> dict[str, Any]:
    """Return the configuration that an existing run was started with, in today's words.

    Of dataset, encoder and augmentation the cache has the last word, as for a new run, so what the run has
    saved of them is left out: before there were streams it was not always true.
    """
    from vla.policy.training.run import RunDirectory
    from vla.policy.version1 import upgrade_policy

    tables = read_tables(RunDirectory.open(run).config)
    kept = {name: table for name, table in tables.items() if name not in ("dataset", "augment")}
    for name, keys in (("encoder", HERE), ("cache", ("path",))):
        if isinstance(table := kept.get(name), dict):
            kept[name] = {key: value for key, value in table.items() if key in keys}
    if isinstance(policy := kept.get("policy"), dict):
        kept["policy"] = upgrade_policy(policy)
    return kept
