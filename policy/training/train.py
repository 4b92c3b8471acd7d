"""The training loop: cached features in, a policy out; no image, decoder or encoder in sight.

Started by torchrun, N processes share each batch (DistributedDataParallel): the same windows, noise and
times as one process would see, so the same losses but for the order of sums.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vla.base.compiling import advise_compiling, compile_module
from vla.base.device import choose_device
from vla.base.distributed import World
from vla.base.errors import ConfigError, VlaError
from vla.base.interrupt import Signals, deferred
from vla.base.progress import Progress
from vla.cache import FeatureCache
from vla.policy.agent import VLAAgent
from vla.policy.batch import Batch
from vla.policy.policy_config import PolicyConfig
from vla.policy.training.ahead import load_ahead
from vla.policy.training.checkpoint import initial_state, load_checkpoint, save_checkpoint
from vla.policy.training.links import link_best, restore_links
from vla.policy.training.meter import Meter, NotFiniteError
from vla.policy.training.not_finite import explain_not_finite
from vla.policy.training.optimizer import clip_gradients, learning_rate, set_learning_rate
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import RunLog, read_metrics
from vla.policy.training.sampling import EpochSampler, RowRandom, generator_for
from vla.policy.training.trackers import open_tracker
from vla.policy.training.train_config import TrainConfig
from vla.policy.training.validation import validate
from vla.policy.windows import FeatureWindows, fits_in_memory, split_episodes

Rollout = Callable[[VLAAgent, int], Mapping[str, float]]
"""Drive the agent live at a step; answers with figures, `avg_reward` among them."""


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
    seconds: float
    samples_per_s: float


def train(
    run: RunDirectory,
    cache: FeatureCache,
    policy: PolicyConfig,
    config: TrainConfig,
    rollout: Rollout | None = None,
    begun: Callable[[], None] | None = None,
) -> TrainReport:
    """Train a policy, from the run's last checkpoint if it has one.

    Args:
        run: where everything goes.
        cache: the features; the only data that is read.
        policy: the agent.
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
        if world.is_main:
            if begun is not None:
                begun()
            shown = {"policy": policy.model_dump(mode="json"), "train": config.model_dump(mode="json")}
            tracker = open_tracker(config.tracker, run, trainer.state.step, shown)
            with RunLog(run, trainer.state.step, tracker) as log:
                trainer.run(log)
        else:
            trainer.run(None)
        world.barrier()
    return trainer.report()


class Trainer:
    """One training run, from where its last checkpoint stands to the last step.

    Rank 0 alone validates, rolls out, writes and shows progress; the others wait for it in the next step.

    Attributes:
        state: all that changes.
        batches: this process's part of those to come, in order.
    """

    def __init__(
        self,
        run: RunDirectory,
        cache: FeatureCache,
        policy: PolicyConfig,
        config: TrainConfig,
        rollout: Rollout | None,
        world: World,
        signals: Signals,
    ) -> None:
        self._cache, self._signals = cache, signals
        self._run, self._config, self._rollout, self._world = run, config, rollout, world
        if config.batch_size % world.size:
            raise ConfigError(f"batch_size {config.batch_size} cannot be shared by {world.size} processes")
        self._device = choose_device(config.device)
        if world.is_main:
            advise_compiling(config.compile, self._device)
        training, held_out = split_episodes(len(cache.metadata.episodes), config.val_episodes)
        resident = fits_in_memory(cache, self._device, config.max_cache_gib)
        if resident and world.is_main:
            # It is read from the disk once in any case: 1.2 GB/s a core. A cache that stays on the disk is
            # checked by header and size alone; `vla verify` reads all of it.
            cache.require_checksums()
        self._windows = FeatureWindows(
            cache,
            device=self._device,
            obs_horizon=policy.obs_horizon,
            pred_horizon=policy.pred_horizon,
            resident=resident,
            language=policy.language,
        )
        self._held_out = self._windows.frames_of(held_out)
        self._sampler = EpochSampler(self._windows.frames_of(training), config.batch_size, config.seed)
        self.state = initial_state(policy, config, cache, self._device, world)
        if world.is_main:
            run.remove_leftovers()
        if (last := run.last_step()) is not None:
            load_checkpoint(run, last, self.state)
        self._started_at, self._seconds = self.state.step, 0.0
        self._model: nn.Module = self.state.agent
        torch.set_float32_matmul_precision(config.matmul_precision)
        compile_module(self.state.agent, config.compile)
        if world.size > 1:
            self._model = DistributedDataParallel(self.state.agent, broadcast_buffers=False)  # none changes
        self.batches = self.load(range(self.state.step, config.steps))
        if not self._windows.resident:
            self.batches = load_ahead(self.batches, self._device)

    def run(self, log: RunLog | None) -> None:
        """Train to the end; figures, validation, checkpoints and rollouts on the way.

        Args:
            log: where figures go; None in every process but rank 0.
        """
        config, state, started = self._config, self.state, time.monotonic()
        if log is not None:
            restore_links(self._run)
        self._rollout_if_due(log)  # killed between a checkpoint and its rollouts
        quiet = log is None
        with Progress("train", config.steps, done=state.step, unit="steps", quiet=quiet) as progress:
            while state.step < config.steps:
                self.step(state.meter)
                if self._due(config.log_every):
                    figures = self._read_figures()
                    if log is not None:
                        log.write("train", state.step, figures)
                    progress.update(0, loss=figures["loss"])
                progress.update(1)
                if log is not None and self._due(config.val_every) and len(self._held_out):
                    log.write("val", state.step, self._validate())
                if log is not None and self._due(config.save_every):
                    self._save()
                self._rollout_if_due(log)
                if self._signals.received is not None and log is not None:
                    self._save()
                self._signals.stop_if_asked(f"step {state.step} of {config.steps} is saved")
        if log is not None:
            self._save()
        self._seconds = time.monotonic() - started

    def report(self) -> TrainReport:
        """Sum up the run from what it has logged."""
        losses = [row["loss"] for row in read_metrics(self._run, "train")]
        validations = read_metrics(self._run, "val")
        rollouts = read_metrics(self._run, "rollout")
        best = max(rollouts, key=lambda row: row["avg_reward"], default=None)
        samples = (self.state.step - self._started_at) * self._config.batch_size
        return TrainReport(
            run=str(self._run.path),
            steps=self.state.step,
            resumed_from=self._started_at,
            loss=losses[-1] if losses else None,
            val_loss=validations[-1]["loss"] if validations else None,
            best_avg_reward=best["avg_reward"] if best else None,
            best_step=best["step"] if best else None,
            seconds=round(self._seconds, 3),
            samples_per_s=round(samples / self._seconds, 1),
        )

    def _save(self) -> None:
        """Write a checkpoint, unless something in it is not finite: the last one is a good one.

        Raises:
            VlaError: a loss, a gradient or a weight is not finite.
        """
        self._require_finite()
        for name, weight in self.state.agent.named_parameters():
            if not torch.isfinite(weight).all():
                what = f"weight '{name}' is not finite at step {self.state.step}"
                raise VlaError(explain_not_finite(what, self._run, self._cache))
        save_checkpoint(self._run, self.state)

    def _read_figures(self) -> dict[str, float]:
        self._require_finite()
        return self.state.meter.read(self.state.step)

    def _require_finite(self) -> None:
        try:
            self.state.meter.require_finite(self.state.step)
        except NotFiniteError as error:
            raise VlaError(explain_not_finite(str(error), self._run, self._cache)) from error

    def step(self, meter: Meter) -> None:
        """Make one update on the next batch."""
        began = time.perf_counter()
        batch = next(self.batches)
        self.update(batch, meter, time.perf_counter() - began)

    def update(self, batch: Batch, meter: Meter, dataloading_s: float = 0.0) -> None:
        """Make one update on a batch.

        Args:
            batch: windows on the device.
            meter: gets the figures; `state.meter` is the one that checkpoints hold.
            dataloading_s: how long the batch was waited for [s], a figure like the others.
        """
        config, state, step = self._config, self.state, self.state.step
        began = time.perf_counter()
        rate = learning_rate(step, config)
        set_learning_rate(state.optimizer, rate)
        state.optimizer.zero_grad(set_to_none=True)  # before the loss: its memory is free for it
        draws = state.agent.draw(batch, self._random("loss", step))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            loss, parts = self._model(batch, draws)
        loss.backward()
        grad_norm = clip_gradients(state.agent.parameters(), config.grad_clip)
        state.optimizer.step()
        state.ema.update(state.agent)
        state.step += 1
        figures = {"loss": loss, **parts, "grad_norm": grad_norm}
        meter.add(
            # Copies: a CUDA graph writes its next results over these.
            {name: value.detach().clone() for name, value in figures.items()},
            lr=rate,
            dataloading_s=dataloading_s,
            update_s=time.perf_counter() - began,
        )

    def load(self, steps: range) -> Iterator[Batch]:
        """Cut the batches of some steps, one after the other."""
        for step in steps:
            rows = self._sampler.draw(step)[self._world.rank :: self._world.size]
            yield self._windows.batch(rows, self._random("variant", step))

    def _random(self, stream: str, step: int) -> RowRandom:
        """Return a step's source of random numbers for one purpose."""
        generator = generator_for(self._config.seed, stream, step, self._device)
        return RowRandom(generator, self._world.rank, self._world.size)

    def _due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.state.step % every == 0 or self.state.step == self._config.steps

    def _validate(self) -> dict[str, float]:
        return validate(self.state.ema_agent, self._windows, self._held_out, self._config.seed)

    def _rollout_if_due(self, log: RunLog | None) -> None:
        """Drive the averaged weights live, once a due step, and keep the best checkpoint in `best`."""
        step, every = self.state.step, self._config.rollout_every
        if log is None or self._rollout is None or not every or step == 0 or not self._due(every):
            return
        rows = read_metrics(self._run, "rollout")
        if any(row["step"] == step for row in rows):
            return
        self._save()
        with self._signals.at_once():  # rollouts that are cut short are made up for by --resume
            figures = self._rollout(self.state.ema_agent, step)
        link_best(self._run, [*rows, {"step": step, **figures}])
        log.write("rollout", step, figures)
