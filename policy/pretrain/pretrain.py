"""Train a world model on cached frames; its encoder is what is wanted.

Everything random is a function of (seed, step), as in `vla.policy.training`: a run that was interrupted goes
on to the same weights.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from vla.base.device import choose_device
from vla.base.distributed import World
from vla.base.errors import VlaError
from vla.base.interrupt import Signals, deferred
from vla.base.lewm import LewmInput
from vla.base.prefetch import prefetch
from vla.base.progress import Progress, say
from vla.cache import ACTION, FeatureCache
from vla.policy.episode_statistics import of_episodes
from vla.policy.pretrain.checkpoint import PretrainState, load_checkpoint, save_checkpoint
from vla.policy.pretrain.clips import ClipCutter, Clips
from vla.policy.pretrain.health import collapse, effective_rank
from vla.policy.pretrain.pretrain_config import PretrainConfig
from vla.policy.pretrain.world_model import WorldModel
from vla.policy.random import generator_for
from vla.policy.training.meter import Meter
from vla.policy.training.optimizer import (
    build_optimizer,
    clip_gradients,
    learning_rate,
    set_learning_rate,
    trained_parameters,
)
from vla.policy.training.outlook import Outlook
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import RunLog, read_metrics
from vla.policy.training.sampling import BATCHES_AHEAD, EpochSampler
from vla.policy.training.trackers import open_tracker
from vla.policy.windows import split_episodes

ADVICE = "without a GPU, begin anew with fewer patches and blocks: --config examples/lewm_demo.toml --out NEW"
HELD_OUT_CLIPS = 512
"""At most, evenly spread over the held-out episodes."""


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """What `pretrain` did."""

    run: str
    steps: int
    resumed_from: int
    loss: float | None
    """Mean over the last logged steps."""
    effective_rank: float | None
    """Directions that the features of the last logged batch use."""
    val_over_mean: float | None
    """Prediction error on held-out episodes, over that of who always says the mean."""
    seconds: float


def pretrain(
    run: RunDirectory,
    cache: FeatureCache,
    looks_at: LewmInput,
    config: PretrainConfig,
    begun: Callable[[], None] | None = None,
) -> PretrainReport:
    """Train, from the run's last checkpoint if it has one.

    Args:
        run: where everything goes.
        cache: frames, of `vla embed --encoder pixels`.
        looks_at: which cameras in which order, and how they are fused.
        config: sizes and the run.
        begun: called once nothing is left to refuse.

    Raises:
        ConfigError: no episode is long enough, or none is left to train on.
        CheckpointError: the last checkpoint is damaged, or does not fit.
        VlaError: the loss is not finite; the last checkpoint is kept.
        Interrupted: a signal came; a checkpoint was written first.
    """
    device = choose_device(config.device)
    devices = [device] if device.type == "cuda" else []
    with deferred() as signals, torch.random.fork_rng(devices=devices):
        trainer = Pretrainer(run, cache, looks_at, config, device, signals)
        first = trainer.state.step
        if begun is not None:
            begun()
        tracker = open_tracker(config.tracker, run, first, {"pretrain": config.model_dump(mode="json")})
        with RunLog(run, first, tracker) as log:
            seconds = trainer.run(log)
    trained, held_out = read_metrics(run, "train"), read_metrics(run, "val")
    return PretrainReport(
        run=str(run.path),
        steps=trainer.state.step,
        resumed_from=first,
        loss=trained[-1]["loss"] if trained else None,
        effective_rank=trained[-1]["effective_rank"] if trained else None,
        val_over_mean=held_out[-1]["over_mean"] if held_out else None,
        seconds=round(seconds, 3),
    )


class Pretrainer:
    """One run, from where its last checkpoint stands to the last step.

    Attributes:
        state: all that changes.
    """

    def __init__(
        self,
        run: RunDirectory,
        cache: FeatureCache,
        looks_at: LewmInput,
        config: PretrainConfig,
        device: torch.device,
        signals: Signals,
    ) -> None:
        self._run, self._looks_at, self._config = run, looks_at, config
        self._device, self._signals, self._schedule = device, signals, config.schedule
        training, held_out = split_episodes(len(cache.metadata.episodes), config.val_episodes)
        self._cutter = ClipCutter(cache, looks_at.cameras, config, device)
        self._sampler = EpochSampler(self._cutter.starts(training), config.batch_size, config.seed)
        self._held_out = _spread(self._cutter.starts(held_out), HELD_OUT_CLIPS)
        torch.manual_seed(config.seed)  # weights are drawn on the CPU: the same on every device
        action = of_episodes(cache, training).statistics[ACTION]
        model = WorldModel(config, len(action.mean))
        model.action_standardize.fit(action.mean, action.std)
        model.to(device)
        optimizer = build_optimizer(model, self._schedule)
        self.state = PretrainState(model, optimizer, Meter(config.batch_size, World()))
        run.remove_leftovers()
        if (last := run.last_step()) is not None:
            load_checkpoint(run, last, self.state, device)
        self._parameters = list(trained_parameters(model).values())

    def run(self, log: RunLog) -> float:
        """Train to the end; figures, validation and checkpoints on the way.

        Returns:
            How long it took [s].
        """
        config, state, began = self._config, self.state, time.monotonic()
        weights = sum(parameter.numel() for parameter in self._parameters)
        left = config.steps - state.step
        outlook = Outlook(self._device, weights, config.batch_size, left, advice=ADVICE)
        batches = prefetch(self._load(range(state.step, config.steps)), BATCHES_AHEAD)
        with Progress("pretrain", config.steps, done=state.step, unit="steps") as progress:
            for clips in batches:
                embedded = self._step(clips)
                outlook.step()
                progress.update(1)
                if self._due(config.log_every):
                    figures = {**self._figures(), "effective_rank": effective_rank(embedded)}
                    log.write("train", state.step, figures)
                    progress.update(0, loss=figures["loss"], rank=figures["effective_rank"])
                    if warning := collapse(figures, config.sigreg):
                        say(warning)
                if self._due(config.val_every) and len(self._held_out):
                    log.write("val", state.step, self._validate())
                if self._due(config.save_every) or self._signals.received is not None:
                    self._save()
                self._signals.stop_if_asked(f"step {state.step} of {config.steps} is saved")
        return time.monotonic() - began

    def _step(self, clips: Clips) -> Tensor:
        """Make one update; return the features of the batch."""
        state, step = self.state, self.state.step
        rate = learning_rate(step, self._schedule)
        set_learning_rate(state.optimizer, rate)
        state.optimizer.zero_grad(set_to_none=True)
        self._seed("loss", step)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            outcome = state.model.train().loss(clips)
        outcome.loss.backward()
        norm = clip_gradients(self._parameters, self._config.grad_clip)
        state.optimizer.step()
        state.step += 1
        state.meter.add(
            {"loss": outcome.loss.detach(), **outcome.figures, "grad_norm": norm.detach()}, lr=rate
        )
        return outcome.embedded

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Return figures of the held-out episodes, with what BatchNorm remembers."""
        model, sums, embedded = self.state.model.eval(), dict[str, float](), []
        self._seed("validation", 0)
        for clips in self._cutter.batches(self._held_out, self._config.batch_size):
            outcome = model.loss(clips)
            share = len(outcome.embedded) / len(self._held_out)
            for name, value in {"loss": outcome.loss, **outcome.figures}.items():
                sums[name] = sums.get(name, 0.0) + share * float(value)
            embedded.append(outcome.embedded)
        return {**sums, "effective_rank": effective_rank(torch.cat(embedded))}

    def _load(self, steps: range) -> Iterator[Clips]:
        for step in steps:
            yield self._cutter.cut(self._sampler.draw(step))

    def _seed(self, purpose: str, step: int) -> None:
        """Set torch's own generators, which dropout draws from, by seed and step."""
        drawn = generator_for(self._config.seed, purpose, step, torch.device("cpu"))
        torch.manual_seed(drawn.initial_seed())

    def _figures(self) -> dict[str, float]:
        self._require_finite()
        return self.state.meter.read(self.state.step)

    def _save(self) -> None:
        self._require_finite()
        save_checkpoint(self._run, self.state, self._looks_at)

    def _require_finite(self) -> None:
        try:
            self.state.meter.require_finite(self.state.step)
        except VlaError as error:
            last = self._run.last_step()
            kept = (
                "there is no checkpoint yet" if last is None else f"the last checkpoint, {last:06d}, is kept"
            )
            lower = f"--set pretrain.lr={self._config.lr / 3:.1g} --out NEW"
            raise VlaError(f"{error}; {kept}; begin anew at a lower rate: {lower}") from error

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self._config.steps


def _spread(starts: Int64[Tensor, "clips"], most: int) -> Int64[Tensor, "kept"]:
    """Return at most so many of a list, evenly spread."""
    if len(starts) <= most:
        return starts
    places: Sequence[int] = [k * len(starts) // most for k in range(most)]
    return starts[torch.tensor(places)]
