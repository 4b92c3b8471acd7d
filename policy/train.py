"""The training loop: cached features in, a policy out; no image, decoder or encoder in sight."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from vla.cache import FeatureCache
from vla.device import choose_device
from vla.errors import VlaError
from vla.policy.agent import VLAAgent
from vla.policy.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from vla.policy.config import PolicyConfig, TrainConfig
from vla.policy.optimizer import build_ema, build_optimizer, clip_gradients, learning_rate, set_learning_rate
from vla.policy.run import RunDirectory
from vla.policy.run_log import RunLog, read_metrics
from vla.policy.sampling import EpochSampler, generator_for
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
        ConfigError: the held-out episodes leave nothing to train on, or the device is not there.
        CheckpointError: the last checkpoint does not fit.
        VlaError: the loss is not finite; the last checkpoint is kept.
    """
    trainer = Trainer(run, cache, policy, config, rollout)
    with RunLog(run, trainer.state.step) as log:
        return trainer.run(log)


class Trainer:
    """One training run, from where its last checkpoint stands to the last step."""

    def __init__(
        self,
        run: RunDirectory,
        cache: FeatureCache,
        policy: PolicyConfig,
        config: TrainConfig,
        rollout: Rollout | None,
    ) -> None:
        self._run, self._config, self._rollout = run, config, rollout
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
        run.remove_leftovers()
        if (last := run.last_step()) is not None:
            load_checkpoint(run, last, self.state)
        self._started_at = self.state.step

    def run(self, log: RunLog) -> TrainReport:
        """Train to the end; figures, validation, checkpoints and rollouts on the way."""
        config, state, started = self._config, self.state, time.monotonic()
        self._rollout_if_due(log)  # killed between a checkpoint and its rollouts
        meter = Meter(config.batch_size)
        with Progress("train", config.steps, done=state.step, unit="steps") as progress:
            while state.step < config.steps:
                self._step(meter)
                if self._due(config.log_every):
                    figures = meter.read(state.step)
                    log.write("train", state.step, figures)
                    progress.update(0, loss=figures["loss"])
                progress.update(1)
                if self._due(config.val_every) and len(self._held_out):
                    log.write("val", state.step, self._validate())
                if self._due(config.save_every):
                    save_checkpoint(self._run, state)
                self._rollout_if_due(log)
        save_checkpoint(self._run, state)
        return self._report(time.monotonic() - started)

    def _step(self, meter: "Meter") -> None:
        """Make one update."""
        config, state, step = self._config, self.state, self.state.step
        began = time.perf_counter()
        batch = self._windows.batch(self._sampler.draw(step))
        loaded = time.perf_counter()
        set_learning_rate(state.optimizer, learning_rate(step, config))
        generator = generator_for(config.seed, "loss", step, self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            loss, parts = state.agent(batch, generator)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = clip_gradients(state.agent.parameters(), config.grad_clip)
        state.optimizer.step()
        state.ema.update_parameters(state.agent)
        state.step += 1
        meter.add(
            {"loss": loss.detach(), **parts, "grad_norm": grad_norm.detach()},
            lr=learning_rate(step, config),
            dataloading_s=loaded - began,
            update_s=time.perf_counter() - loaded,
        )

    def _due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.state.step % every == 0 or self.state.step == self._config.steps

    def _validate(self) -> dict[str, float]:
        return validate(self.state.ema_agent, self._windows, self._held_out, self._config.seed)

    def _rollout_if_due(self, log: RunLog) -> None:
        """Drive the averaged weights live, once a due step, and keep the best checkpoint in `best`."""
        step = self.state.step
        if self._rollout is None or not self._config.rollout_every or step == 0:
            return
        rows = read_metrics(self._run, "rollout")
        if not self._due(self._config.rollout_every) or any(row["step"] == step for row in rows):
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

    def _report(self, seconds: float) -> TrainReport:
        losses = [row["loss"] for row in read_metrics(self._run, "train")]
        validations = read_metrics(self._run, "val")
        rollouts = read_metrics(self._run, "rollout")
        best = max(rollouts, key=lambda row: row["avg_reward"], default=None)
        updates = self.state.step - self._started_at
        return TrainReport(
            run=str(self._run.path),
            steps=self.state.step,
            resumed_from=self._started_at,
            loss=losses[-1] if losses else None,
            val_loss=validations[-1]["loss"] if validations else None,
            best_avg_reward=best["avg_reward"] if best else None,
            best_step=best["step"] if best else None,
            seconds=round(seconds, 3),
            samples_per_s=round(updates * self._config.batch_size / seconds, 1),
        )


class Meter:
    """Collect figures of steps without waiting for the device, until they are read.

    Args:
        batch_size: windows a step.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._tensors: list[dict[str, torch.Tensor]] = []
        self._floats: list[dict[str, float]] = []
        self._began = time.perf_counter()

    def add(self, tensors: dict[str, torch.Tensor], **floats: float) -> None:
        """Add one step's figures."""
        self._tensors.append(tensors)
        self._floats.append(floats)

    def read(self, step: int) -> dict[str, float]:
        """Return the means since the last reading, and forget them.

        Raises:
            VlaError: the loss is not finite.
        """
        means = {
            name: float(torch.stack([row[name] for row in self._tensors]).mean()) for name in self._tensors[0]
        }
        if not math.isfinite(means["loss"]):
            raise VlaError(
                f"the loss is {means['loss']} before step {step}; the last checkpoint is kept. "
                "Look at the cache (vla inspect) or lower the rate: --set train.lr=1e-4 --resume"
            )
        means |= {
            name: sum(row[name] for row in self._floats) / len(self._floats) for name in self._floats[0]
        }
        now = time.perf_counter()
        means["samples_per_s"] = len(self._floats) * self._batch_size / (now - self._began)
        self._tensors, self._floats, self._began = [], [], now
        return means
