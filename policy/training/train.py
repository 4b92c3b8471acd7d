"""Train a policy: cached features in, checkpoints and figures out.

Started by torchrun, N processes share each batch (DistributedDataParallel): the same windows, noise and
times as one process would see, so the same losses but for the order of sums.
"""

from collections.abc import Callable
from dataclasses import dataclass

from vla.base.distributed import World
from vla.base.interrupt import deferred
from vla.policy.mixture import AnyCache
from vla.policy.policy_config import PolicyConfig
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import RunLog, read_metrics
from vla.policy.training.trackers import open_tracker
from vla.policy.training.train_config import TrainConfig
from vla.policy.training.trainer import Rollout, Trainer


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What `train` did."""

    run: str
    steps: int
    resumed_from: int
    """Step that this process started at."""
    loss: float | None
    """Mean over the last logged steps."""
    val_loss: float | None
    best_avg_reward: float | None
    best_step: int | None
    """Of the checkpoint `best`; see `train.best`."""
    seconds: float
    samples_per_s: float


def train(
    run: RunDirectory,
    cache: AnyCache,
    policy: PolicyConfig,
    config: TrainConfig,
    rollout: Rollout | None = None,
    begun: Callable[[], None] | None = None,
) -> TrainReport:
    """Train a policy, from the run's last checkpoint if it has one.

    Args:
        run: where everything goes.
        cache: the features, or a mixture of several caches; the only data that is read.
        policy: what the policy is.
        config: the run.
        rollout: validation rollouts, every `rollout_every` steps; None is none.
        begun: called in rank 0 before the first step, when nothing is left to refuse.

    Raises:
        ConfigError: the held-out episodes leave nothing to train on, the device is not there, or the
            batch cannot be shared by the processes.
        CacheError: a shard's bytes are not those that were written.
        CheckpointError: the last checkpoint is damaged, or does not fit.
        VlaError: the loss is not finite; the last checkpoint is kept.
        Interrupted: a signal came; a checkpoint was written first.
    """
    with World.join() as world, deferred() as signals:
        trainer = Trainer(run, cache, policy, config, rollout, world, signals)
        started_at, tracker = trainer.state.step, None
        if world.is_main:
            if begun is not None:
                begun()
            shown = {"policy": policy.model_dump(mode="json"), "train": config.model_dump(mode="json")}
            tracker = open_tracker(config.tracker, run, started_at, shown)
        with RunLog(run, started_at, tracker, writes=world.is_main) as log:
            seconds = trainer.run(log)
        world.barrier()
    return _report(run, config, started_at, trainer.state.step, seconds)


def _report(run: RunDirectory, config: TrainConfig, first: int, last: int, seconds: float) -> TrainReport:
    """Sum up the run from what it has logged."""
    losses = [row["loss"] for row in read_metrics(run, "train")]
    validations = read_metrics(run, "val")
    best = max(read_metrics(run, "rollout"), key=lambda row: row["avg_reward"], default=None)
    return TrainReport(
        run=str(run.path),
        steps=last,
        resumed_from=first,
        loss=losses[-1] if losses else None,
        val_loss=validations[-1]["loss"] if validations else None,
        best_avg_reward=best["avg_reward"] if best else None,
        best_step=run.best_step(),
        seconds=round(seconds, 3),
        samples_per_s=round((last - first) * config.batch_size / seconds, 1),
    )
