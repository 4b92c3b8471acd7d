"""Rollouts during training: drive the policy live and report to the training loop."""

import copy
from collections.abc import Mapping

from vla.embed.encoders.encoder import EncoderConfig
from vla.policy.agents.answering import answer_for
from vla.policy.agents.policy import Policy
from vla.policy.heads.head import set_temperature
from vla.policy.saved_policy import SavedPolicy
from vla.policy.training.run import RunDirectory
from vla.rollout.evaluate.evaluate import evaluate
from vla.rollout.live import LivePolicy, load_encoder
from vla.rollout.rollout_config import EnvConfig, RolloutConfig

SEEDS_APART = 1_000_000
"""Between the seeds of validation rollouts and those of `vla rollout`."""


class ValidationRollouts:
    """Evaluate a policy at a step of its training; called by `vla.policy.training.train`.

    Args:
        run: episodes are written below it, one folder a step.
        env: the environment.
        config: seeds, environments side by side, sampling steps.
        encoder: that of the cache, loaded now, so that a missing one is found before hours of work.
        trained_on: what the policy observes, and the encoders that wrote it.
        episodes: of each evaluation.

    Raises:
        EncoderError: the encoder cannot be loaded, or is another one than the cache's.
    """

    def __init__(
        self,
        run: RunDirectory,
        env: EnvConfig,
        config: RolloutConfig,
        encoder: EncoderConfig,
        trained_on: SavedPolicy,
        episodes: int,
    ) -> None:
        self._run, self._env = run, env
        self._encoder = load_encoder(encoder, trained_on)
        # `best` is chosen here: measured on the same seeds it would look better than it is.
        changes = {"episodes": episodes, "videos": min(1, config.videos), "seed": config.seed + SEEDS_APART}
        self._config = config.model_copy(update=changes)

    def __call__(self, policy: Policy, step: int) -> Mapping[str, float]:
        """Roll out and return `avg_reward` and its companions; no `pc_success` where it was not measured."""
        chosen = self._config
        # A copy: it is compiled in place, and the policy goes on to be validated and averaged. What is frozen
        # is shared: a language model would not fit twice.
        how = "off" if chosen.compile == "auto" else chosen.compile
        copied = copy.deepcopy(policy, {id(p): p for p in policy.parameters() if not p.requires_grad})
        answer_for(copied, chosen.cache)
        set_temperature(copied, chosen.temperature)
        live = LivePolicy(copied, self._encoder, chosen.num_steps, how, chosen.task, chosen.execution)
        info = evaluate(live, self._env, self._config, self._run.evaluation(step))
        figures = {"avg_reward": info["avg_reward"]}
        figures |= {name: info["aggregated"][name] for name in ("avg_max_reward", "pc_success", "eval_s")}
        return {name: value for name, value in figures.items() if value is not None}
