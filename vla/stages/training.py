"""`train`: a policy on a cache. What is asked is held against what is there, and what is saved is true."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from vla.advice import advised
from vla.base.errors import ConfigError, WriteError
from vla.base.files import NO_ROOM, cannot_write
from vla.config import PipelineConfig
from vla.matching import (
    of_caches,
    open_caches,
    require_fit,
    require_same_cache,
    require_same_policy,
    with_rollouts_that_fit,
)
from vla.resuming import resumed

if TYPE_CHECKING:
    from vla.base.distributed import World
    from vla.policy.mixture import AnyCache
    from vla.policy.training.run import RunDirectory
    from vla.policy.training.train import TrainReport
    from vla.rollout.evaluate.validation import ValidationRollouts


@advised
def train(settings: PipelineConfig, *, resume: bool = False, extend: bool = False) -> "TrainReport":
    """Train a policy on a cache, or several, into `train.out`; see `vla.policy.training.train`.

    Args:
        settings: the whole configuration.
        resume: go on with the run that is there.
        extend: with more steps than it was begun with; the learning rate rises again, see `vla.resuming`.

    Raises:
        CacheError: the cache lacks features of its task texts where the policy takes them, or is not the one
            that a resumed run was trained on; or caches do not agree.
        ConfigError: the configuration contradicts the cache, validation rollouts could not tell what to do,
            or a resumed run was begun with another policy or other keys of `[train]`; see `vla.resuming`.
        EnvironmentSetupError: the environment named for validation rollouts is not that of the cache.
        WriteError: the disk is full; the last checkpoint is kept.
    """
    from vla.base.distributed import World
    from vla.base.lock import exclusive
    from vla.policy.training.run import RunDirectory
    from vla.policy.training.trackers import require_tracker

    require_tracker(settings.train.tracker)
    if extend and not resume:
        raise ConfigError("--extend goes on with a run that is there, so it needs --resume")
    cache = open_caches(settings)
    settings = of_caches(settings, cache)
    require_fit(settings, cache)
    world = World.join()
    if world.is_main and settings.train.rollout_every:
        settings = with_rollouts_that_fit(settings, cache)
    directory = RunDirectory(Path(settings.train.out))
    with exclusive(directory.path) if world.is_main else nullcontext(), _resumable(directory, resume):
        return _train(settings, cache, directory, world, resume, extend)


@contextmanager
def _resumable(directory: "RunDirectory", resume: bool) -> Iterator[None]:
    """Say of a disk that is full what the same command needs besides, once there is a run to go on with."""
    try:
        yield
    except (WriteError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_ROOM:
            raise
        # Figures, tracker and plots write through libraries, which know nothing of our errors.
        line = cannot_write(directory.path, error) if isinstance(error, OSError) else str(error)
        again = " with --resume" if directory.config.is_file() and not resume else ""
        raise WriteError(line + again) from error


def _train(
    settings: PipelineConfig,
    cache: "AnyCache",
    directory: "RunDirectory",
    world: "World",
    resume: bool,
    extend: bool,
) -> "TrainReport":
    """Train in a run directory that nobody else writes to."""
    from vla.base.interrupt import Interrupted
    from vla.policy.training.plots import plot_training
    from vla.policy.training.run import RunDirectory
    from vla.policy.training.train import train as run

    if resume:
        RunDirectory.open(directory.path)
        if (step := directory.last_step()) is not None:
            require_same_cache(directory.checkpoint(step), cache)
            require_same_policy(directory.checkpoint(step), settings.policy)
        settings = resumed(settings, directory, extend=extend)
    elif world.is_main:
        RunDirectory.create(directory.path)
    rollouts = None
    if world.is_main and settings.train.rollout_every:
        rollouts = _validation_rollouts(settings, cache, directory)
    world.barrier()
    try:
        # Saved once nothing is left to refuse: a refused --resume leaves the run's configuration as it was.
        report = run(
            directory,
            cache,
            settings.policy,
            settings.train,
            rollouts,
            begun=lambda: _begin(settings, cache, directory),
        )
    except Interrupted as stop:
        stop.options = ("--resume",) if directory.config.is_file() else ()
        raise
    if world.is_main:
        plot_training(directory)
    return report


def _begin(settings: PipelineConfig, cache: "AnyCache", directory: "RunDirectory") -> None:
    """Save the configuration, and keep the encoder where it cannot be had again."""
    from vla.base.kept_encoder import keep_encoder, kept_encoder
    from vla.policy.mixture import caches_of

    keep_encoder(kept_encoder(*(one.folder for one in caches_of(cache))), directory.path)
    settings.save(directory.config)


def _validation_rollouts(
    settings: PipelineConfig, cache: "AnyCache", directory: "RunDirectory"
) -> "ValidationRollouts":
    from vla.policy.heads.head import ActionHead
    from vla.policy.saved_policy import SavedPolicy
    from vla.rollout.evaluate.validation import ValidationRollouts

    temperature = settings.rollout.temperature
    if temperature is not None and not hasattr(getattr(settings.policy, "head", None), "temperature"):
        raise ConfigError(f"rollout.temperature = {temperature:g}: {ActionHead.temperature_problem}")
    trained_on = SavedPolicy.for_cache(settings.policy, cache.metadata)
    episodes = settings.train.rollout_episodes
    return ValidationRollouts(
        directory, settings.env, settings.rollout, settings.encoder, trained_on, episodes
    )
