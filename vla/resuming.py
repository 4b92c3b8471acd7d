"""What a run goes on with: `[train]` of `--resume` is held against what the run was begun with."""

import shlex
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vla.base.errors import ConfigError
from vla.base.strict import explain
from vla.config import PipelineConfig, read_tables
from vla.matching import spell
from vla.policy.training.train_config import TrainConfig

if TYPE_CHECKING:
    from vla.policy.training.run import RunDirectory

FREE = {
    "out",
    "adapt_steps",
    "caches",
    "weights",
    "rename",
    "normalise",
    "device",
    "accumulate",
    "gradient_checkpointing",
    "tracker",
    "best",
    "patience",
    "compile",
    "max_cache_gib",
    "log_every",
    "val_every",
    "save_every",
    "rollout_every",
    "rollout_episodes",
}
"""Keys of `[train]` that decide where and how a run computes, and what is looked at; not what it learns.
Caches and what is drawn from them are held against the checkpoint, see `vla.matching.require_same_cache`."""


def resumed(settings: PipelineConfig, run: "RunDirectory", *, extend: bool) -> PipelineConfig:
    """Return the settings that a run goes on with.

    Args:
        settings: what is asked.
        run: one that was begun.
        extend: it may get more steps than it was begun with; those that it had are noted in `train.extended`.

    Raises:
        ConfigError: a key says otherwise than the run's configuration, and would change what is learned.
    """
    begun, asked = begun_with(run), settings.train
    if extend and asked.steps > begun.steps and asked.extended == begun.extended:
        # A run of no steps has not begun: there is no cosine that ended.
        ends = (*begun.extended, begun.steps) if begun.steps else begun.extended
        asked = asked.model_copy(update={"extended": ends})
        begun = begun.model_copy(update={"extended": ends, "steps": asked.steps})
    for key in TrainConfig.model_fields:
        before, now = getattr(begun, key), getattr(asked, key)
        if key not in FREE and before != now:
            raise ConfigError(
                _difference(run, key, spell(before), spell(now), longer=_is_longer(key, before, now))
            )
    return settings.model_copy(update={"train": asked})


def begun_with(run: "RunDirectory") -> TrainConfig:
    """Return `[train]` of a run's own configuration.

    Raises:
        ConfigError: it cannot be read.
    """
    table = read_tables(run.config).get("train", {})
    try:
        return TrainConfig.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{run.config}: {explain(error, TrainConfig, 'train')}") from None


def _is_longer(key: str, before: object, now: object) -> bool:
    return key == "steps" and isinstance(before, int) and isinstance(now, int) and now > before


def _difference(run: "RunDirectory", key: str, before: str, now: str, *, longer: bool) -> str:
    name = f"train.{key}"
    ways = [f"continue with the former (--set {shlex.quote(f'{name}={before}')})"]
    if longer:
        ways.append("let the learning rate rise again and fall to the new end (--extend)")
    ways.append("start a new run: another --out, without --resume")
    return (
        f"{run.path} was begun with {name} = {before}, the configuration says {now}; "
        f"{', '.join(ways[:-1])}, or {ways[-1]}"
    )
