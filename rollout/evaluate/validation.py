"""Rollouts during training: drive the agent live and report to the training loop."""

import copy
from collections.abc import Mapping

from vla.cache import CacheMetadata
from vla.embed import EncoderConfig, FrozenEncoder
from vla.policy.agent import AgentConfig, VLAAgent
from vla.policy.training.run import RunDirectory
from vla.rollout.evaluate.evaluate import evaluate
from vla.rollout.live import LivePolicy, require_same_encoder
from vla.rollout.rollout_config import EnvConfig, RolloutConfig

SEEDS_APART = 1_000_000
"""Between the seeds of validation rollouts and those of `vla rollout`."""


class ValidationRollouts:
    """Evaluate an agent at a step of its training; called by `vla.policy.training.train`.

    Args:
        run: episodes are written below it, one folder a step.
        env: the environment.
        config: seeds, environments side by side, sampling steps.
        encoder: the encoder of the cache, loaded now, so that a missing one is found before hours of work.
        trained_on: the cache.
        episodes: of each evaluation.

    Raises:
        EncoderError: the encoder cannot be loaded, or gives other features than the cache's.
    """

    def __init__(
        self,
        run: RunDirectory,
        env: EnvConfig,
        config: RolloutConfig,
        encoder: EncoderConfig,
        trained_on: AgentConfig | CacheMetadata,
        episodes: int,
    ) -> None:
        self._run, self._env = run, env
        # `best` is chosen here: measured on the same seeds it would look better than it is.
        changes = {"episodes": episodes, "videos": min(1, config.videos), "seed": config.seed + SEEDS_APART}
        self._config = config.model_copy(update=changes)
        self._encoder = FrozenEncoder.load(encoder)
        require_same_encoder(trained_on, self._encoder)

    def __call__(self, agent: VLAAgent, step: int) -> Mapping[str, float]:
        """Roll out and return `avg_reward` and its companions; no `pc_success` where it was not measured."""
        chosen = self._config
        # A copy: it is compiled in place, and the agent goes on to be validated and averaged.
        policy = LivePolicy(
            copy.deepcopy(agent), self._encoder, chosen.num_steps, chosen.compile, chosen.task
        )
        info = evaluate(policy, self._env, self._config, self._run.evaluation(step))
        figures = {"avg_reward": info["avg_reward"]}
        figures |= {name: info["aggregated"][name] for name in ("avg_max_reward", "pc_success", "eval_s")}
        return {name: value for name, value in figures.items() if value is not None}
