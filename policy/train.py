"""The training loop: cached features in, a policy out; no image, decoder or encoder in sight.

Started by torchrun, N processes share each batch (DistributedDataParallel): the same windows, noise and
times as one process would see, so the same losses but for the order of sums.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vla.cache import FeatureCache
from vla.device import choose_device
from vla.distributed import World
from vla.errors import ConfigError
from vla.policy.agent import VLAAgent
from vla.policy.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from vla.policy.config import PolicyConfig, TrainConfig
from vla.policy.meter import Meter
from vla.policy.optimizer import build_ema, build_optimizer, clip_gradients, learning_rate, set_learning_rate
from vla.policy.run import RunDirectory
from vla.policy.run_log import RunLog, read_metrics
from vla.policy.sampling import EpochSampler, RowRandom, generator_for
from vla.policy.validation import validate
from vla.policy.windows import FeatureWindows, fits_in_memory, split_episodes
from vla.progress import Progress

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
) -> TrainReport:
    """Train a policy, from the run's last checkpoint if it has one.

    Args:
        run: where everything goes.
        cache: the features; the only data that is read.
        policy: the agent.
        config: the run.
        rollout: validation rollouts, every `rollout_every` steps; None is none.

    Raises:
        ConfigError: the held-out episodes leave nothing to train on, the device is not there, or the
            batch cannot be shared by the processes.
        CheckpointError: the last checkpoint does not fit.
        VlaError: the loss is not finite; the last checkpoint is kept.
    """
    with World.join() as world:
        trainer = Trainer(run, cache, policy, config, rollout, world)
        if world.is_main:
            with RunLog(run, trainer.state.step) as log:
                trainer.run(log)
        else:
            trainer.run(None)
        world.barrier()
    return trainer.report()


class Trainer:
    """One training run, from where its last checkpoint stands to the last step.

    Rank 0 alone validates, rolls out, writes and shows progress; the others wait for it in the next step.
    """

    def __init__(
        self,
        run: RunDirectory,
        cache: FeatureCache,
        policy: PolicyConfig,
        config: TrainConfig,
        rollout: Rollout | None,
        world: World,
    ) -> None:
        self._run, self._config, self._rollout, self._world = run, config, rollout, world
        if config.batch_size % world.size:
            raise ConfigError(f"batch_size {config.batch_size} cannot be shared by {world.size} processes")
        self._device = choose_device(config.device)
        training, held_out = split_episodes(len(cache.metadata.episodes), config.val_episodes)
        self._windows = FeatureWindows(
            cache,
            device=self._device,
            obs_horizon=policy.obs_horizon,
            pred_horizon=policy.pred_horizon,
            resident=fits_in_memory(cache, self._device, config.max_cache_gib),
        )
        self._held_out = self._windows.frames_of(held_out)
        self._sampler = EpochSampler(self._windows.frames_of(training), config.batch_size, config.seed)
        self.state = self._build_state(policy, cache)
        if world.is_main:
            run.remove_leftovers()
        if (last := run.last_step()) is not None:
            load_checkpoint(run, last, self.state)
        self._started_at, self._seconds = self.state.step, 0.0
        self._model: nn.Module = self.state.agent
        if world.size > 1:
            self._model = DistributedDataParallel(self.state.agent)

    def run(self, log: RunLog | None) -> None:
        """Train to the end; figures, validation, checkpoints and rollouts on the way.

        Args:
            log: where figures go; None in every process but rank 0.
        """
        config, state, started = self._config, self.state, time.monotonic()
        self._rollout_if_due(log)  # killed between a checkpoint and its rollouts
        meter = Meter(config.batch_size, self._world)
        quiet = log is None
        with Progress("train", config.steps, done=state.step, unit="steps", quiet=quiet) as progress:
            while state.step < config.steps:
                self._step(meter)
                if self._due(config.log_every):
                    figures = meter.read(state.step)
                    if log is not None:
                        log.write("train", state.step, figures)
                    progress.update(0, loss=figures["loss"])
                progress.update(1)
                if log is not None and self._due(config.val_every) and len(self._held_out):
                    log.write("val", state.step, self._validate())
                if log is not None and self._due(config.save_every):
                    save_checkpoint(self._run, state)
                self._rollout_if_due(log)
        if log is not None:
            save_checkpoint(self._run, state)
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

    def _step(self, meter: Meter) -> None:
        """Make one update."""
        config, state, step = self._config, self.state, self.state.step
        began = time.perf_counter()
        rows = self._sampler.draw(step)[self._world.rank :: self._world.size]
        batch = self._windows.batch(rows, self._random("variant"))
        loaded = time.perf_counter()
        rate = learning_rate(step, config)
        set_learning_rate(state.optimizer, rate)
        draws = state.agent.draw(batch, self._random("loss"))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            loss, parts = self._model(batch, draws)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = clip_gradients(state.agent.parameters(), config.grad_clip)
        state.optimizer.step()
        state.ema.update_parameters(state.agent)
        state.step += 1
        meter.add(
            {"loss": loss.detach(), **parts, "grad_norm": grad_norm.detach()},
            lr=rate,
            dataloading_s=loaded - began,
            update_s=time.perf_counter() - loaded,
        )

    def _random(self, stream: str) -> RowRandom:
        """Return this step's source of random numbers for one purpose."""
        generator = generator_for(self._config.seed, stream, self.state.step, self._device)
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
        save_checkpoint(self._run, self.state)
        figures = self._rollout(self.state.ema_agent, step)
        if all(figures["avg_reward"] > row["avg_reward"] for row in rows):
            self._run.link("best", step)
        log.write("rollout", step, figures)

    def _build_state(self, policy: PolicyConfig, cache: FeatureCache) -> TrainingState:
        config = self._config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # weights are drawn on the CPU: the same on every device
            agent = VLAAgent.for_cache(policy, cache.metadata)
        agent = agent.to(self._device)
        return TrainingState(agent, build_ema(agent, config.ema_decay), build_optimizer(agent, config))
