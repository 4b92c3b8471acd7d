"""The training loop. It knows policies by their protocol alone: no image, decoder or encoder in sight."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vla.base.compiling import compile_module, for_training, say_compiling
from vla.base.device import autocasts, choose_device
from vla.base.distributed import World
from vla.base.errors import ConfigError, VlaError
from vla.base.interrupt import Signals
from vla.base.progress import Progress, say
from vla.cache import ACTION
from vla.policy.agents.policy import Policy
from vla.policy.batch import Batch
from vla.policy.mixture import AnyCache
from vla.policy.policy_config import PolicyConfig
from vla.policy.random import RowRandom, generator_for
from vla.policy.training.augment import augment
from vla.policy.training.best import Judge, Measure, choose_measure
from vla.policy.training.checkpoint import initial_state, load_checkpoint, save_checkpoint
from vla.policy.training.meter import Meter, NotFiniteError, explain_not_finite
from vla.policy.training.optimizer import (
    clip_gradients,
    learning_rate,
    set_learning_rate,
    trained_parameters,
)
from vla.policy.training.outlook import Outlook
from vla.policy.training.recompute import recompute_activations
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import RunLog, read_metrics
from vla.policy.training.sampling import load_ahead
from vla.policy.training.supply import Supply, of_training
from vla.policy.training.train_config import TrainConfig
from vla.policy.training.validation import validate_all
from vla.policy.windows import fits_in_memory

Rollout = Callable[[Policy, int], Mapping[str, float]]
"""Drive the policy live at a step; answers with figures, `avg_reward` among them."""


class Trainer:
    """One training run, from where its last checkpoint stands to the last step.

    The main process alone validates, rolls out, writes and shows progress; the others wait for it in the
    next step.

    Attributes:
        state: all that changes.
        batches: this process's part of those to come, in order.
    """

    def __init__(
        self,
        run: RunDirectory,
        cache: AnyCache,
        policy: PolicyConfig,
        config: TrainConfig,
        rollout: Rollout | None,
        world: World,
        signals: Signals,
    ) -> None:
        self._cache, self._signals = cache, signals
        self._run, self._config, self._rollout, self._world = run, config, rollout, world
        if config.batch_size % (world.size * config.accumulate):
            passes = f" in {config.accumulate} passes" if config.accumulate > 1 else ""
            raise ConfigError(
                f"batch_size {config.batch_size} cannot be shared by {world.size} processes{passes}"
            )
        self._device = choose_device(config.device)
        self._autocasts = autocasts(config.autocast, self._device)
        compiling = for_training(config.compile, self._device, config.steps)
        if world.is_main:
            say_compiling(config.compile, compiling, "train.compile")
        cache, metadata = of_training(cache, config.val_episodes)
        self.state = initial_state(policy, config, cache, metadata, self._device, world)
        trained = self.state.policy
        seen = [ACTION, *(stream.name for stream in trained.observes)]
        resident = fits_in_memory(cache, seen, self._device, config.max_cache_gib)
        if resident and world.is_main:
            # It is read from the disk once in any case: 1.2 GB/s a core. A cache that stays on the disk is
            # checked by header and size alone; `vla verify` reads all of it.
            cache.require_checksums()
        self._supply = Supply(cache, trained, config, self._device, resident)
        measure: Measure | None = None
        if world.is_main:  # the others have no rollouts
            measured = {
                "rollout": rollout is not None and config.rollout_every > 0,
                "val": config.val_episodes > 0,
            }
            measure = choose_measure(config, measured)
        self._judge = Judge(run, config, world.broadcast((measure,))[0])
        if world.is_main:
            run.remove_leftovers()
        if (last := run.last_step()) is not None:
            load_checkpoint(run, last, self.state)
        if config.gradient_checkpointing:
            recompute_activations(trained)
        self._parameters = list(trained_parameters(trained).values())
        self._model: nn.Module = trained.train()
        torch.set_float32_matmul_precision(config.matmul_precision)
        compile_module(trained, compiling, else_eager=config.compile == "auto")
        if world.size > 1:
            # Buffers are not exchanged: those of normalisation do not change, and the main one's are saved.
            self._model = DistributedDataParallel(trained, broadcast_buffers=False)
        self.batches = self.load(range(self.state.step, config.steps))
        if not resident:
            self.batches = load_ahead(self.batches, self._device)

    def run(self, log: RunLog) -> float:
        """Train to the end; figures, validation, checkpoints and rollouts on the way.

        Args:
            log: where figures go.

        Returns:
            How long it took [s].
        """
        config, state, world, started = self._config, self.state, self._world, time.monotonic()
        if world.is_main:
            self._judge.restore_links()
        self._rollout_if_due(log)  # killed between a checkpoint and its rollouts
        quiet = not world.is_main
        weights = sum(parameter.numel() for parameter in self._parameters)
        left = config.steps - state.step
        outlook = Outlook(self._device, weights, config.batch_size, left, quiet=quiet)
        with Progress("train", config.steps, done=state.step, unit="steps", quiet=quiet) as progress:
            while state.step < config.steps and not self._has_stopped():
                self.step(state.meter)
                outlook.step()
                if self._due(config.log_every):
                    figures = self._read_figures()
                    log.write("train", state.step, figures)
                    progress.update(0, loss=figures["loss"])
                progress.update(1)
                if world.is_main and self._due(config.val_every) and config.val_episodes:
                    self._take_in(log, "val", self._validate())
                if self._due(config.save_every) or self._signals.received is not None:
                    self._save()
                self._rollout_if_due(log)
                self._signals.stop_if_asked(f"step {state.step} of {config.steps} is saved")
        self._save()
        return time.monotonic() - started

    def _save(self) -> None:
        """Let the main process write a checkpoint, unless something in it is not finite.

        Raises:
            VlaError: a loss, a gradient or a weight is not finite.
        """
        if not self._world.is_main:
            return
        self._require_finite()
        for name, weight in self.state.policy.named_parameters():
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
        figures = self._differentiate(batch, step)
        figures["grad_norm"] = clip_gradients(self._parameters, config.grad_clip or state.policy.grad_clip)
        state.optimizer.step()
        state.ema.update(state.policy)
        state.step += 1
        meter.add(
            # Copies: a CUDA graph writes its next results over these.
            {name: value.detach().clone() for name, value in figures.items()},
            lr=rate,
            dataloading_s=dataloading_s,
            update_s=time.perf_counter() - began,
        )

    def _differentiate(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Add up the gradient of a batch's loss, in one pass or several; return the figures' means.

        Each pass takes every n-th row, as processes do, so that the passes see what one would.
        """
        passes = self._config.accumulate
        draws = self.state.policy.draw(batch, self._random("loss", step))
        sums: dict[str, Tensor] = {}
        for number in range(passes):
            is_last = number == passes - 1
            with nullcontext() if is_last else self._without_exchange():
                part = (
                    {name: tensor[number::passes] for name, tensor in draws.items()} if passes > 1 else draws
                )
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocasts):
                    loss, parts = self._model(batch.part(number, passes), part)
                (loss / passes if passes > 1 else loss).backward()
            figures = {"loss": loss.detach(), **parts}
            if passes > 1:
                figures = {name: sums.get(name, 0.0) + value / passes for name, value in figures.items()}
            sums = figures
        return sums

    def _without_exchange(self) -> AbstractContextManager[None]:
        """Keep processes from adding up their gradients before the last pass."""
        model = self._model
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def load(self, steps: range) -> Iterator[Batch]:
        """Cut the batches of some steps, one after the other."""
        for step in steps:
            rows = self._supply.sampler.draw(step)[self._world.rank :: self._world.size]
            batch = self._supply.windows.batch(rows, self._random("variant", step))
            if (changes := self._config.augment).is_on:
                batch = augment(batch, self.state.policy.observes, changes, self._random("augment", step))
            yield batch.held() if self._config.past_end == "hold" else batch

    def _random(self, purpose: str, step: int) -> RowRandom:
        """Return a step's source of random numbers for one purpose."""
        generator = generator_for(self._config.seed, purpose, step, self._device)
        return RowRandom(generator, self._world.rank, self._world.size)

    def _due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.state.step % every == 0 or self.state.step == self._config.steps

    def _take_in(self, log: RunLog, kind: str, figures: Mapping[str, float]) -> None:
        """Log what was measured, and keep the checkpoint that is the best by it."""
        is_best = self._judge.is_best(kind, self.state.step, figures)
        log.write(kind, self.state.step, figures)  # first: without a checkpoint it is measured again
        if is_best:
            self._save()
            self._judge.keep(self.state.step)

    def _has_stopped(self) -> bool:
        """Whether training ends here because nothing becomes better; all processes ask between steps."""
        if not self._judge.may_stop(self.state.step):
            return False
        reason = self._judge.reason_to_stop() if self._world.is_main else ""
        (reason,) = self._world.broadcast((reason,))
        if reason and self._world.is_main:
            say(f"stopped at step {self.state.step} of {self._config.steps}: {reason}")
        return bool(reason)

    def _validate(self) -> dict[str, float]:
        hold = self._config.past_end == "hold"
        return validate_all(self.state.ema_policy, self._supply.held_out, self._config.seed, hold=hold)

    def _rollout_if_due(self, log: RunLog) -> None:
        """Drive the averaged weights live, once a due step, and keep the best checkpoint in `best`."""
        step, every = self.state.step, self._config.rollout_every
        if not self._world.is_main or self._rollout is None or not every or step == 0 or not self._due(every):
            return
        rows = read_metrics(self._run, "rollout")
        if any(row["step"] == step for row in rows):
            return
        self._save()
        with self._signals.at_once():  # rollouts that are cut short are made up for by --resume
            figures = self._rollout(self.state.ema_policy, step)
        self._take_in(log, "rollout", figures)
