"""Real-time chunking (RTC, arXiv 2506.07339): a chunk is decided while the one before is still executed.

    old chunk    p0 p1 p2 p3 p4 p5 p6 p7             what is left of it now
    weight       1  1  .9 .6 .4 .2 .1 .0  0  0       `delay` actions are fixed, then less and less
    new chunk    p0 p1 c2 c3 c4 c5 c6 c7 c8 c9       sampled so as to join; see `vla.policy.heads.joining`

The first `delay` actions are those of the old chunk, to the bit: a robot that goes on while the policy
computes has executed them by the time when the new ones come.

B batch, T pred_horizon, A action size, L actions of the old chunk that are left.
"""

import math
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from vla.base.errors import ConfigError
from vla.base.strict import NotNegative
from vla.cache.stream import Observation
from vla.policy.agents.chunk_policy import Joint
from vla.policy.agents.policy import Policy
from vla.policy.random import Random
from vla.rollout.execution.execution import Execution, ExecutionConfig, require_chunks

STEPS = 5
"""Sampling steps of a chunk that joins, where nothing else is asked and the head takes fewer. Guided in one
step, chunks of improved MeanFlow bend at the joint 7 times as much as unguided ones, in 5 steps a ninth
(benchmarks/real_time.py, docs/decisions/0025)."""


class RealTimeConfig(ExecutionConfig):
    """Sample each chunk so that it joins what is left of the one before."""

    type: Literal["real_time"] = "real_time"
    delay: Annotated[int, Field(ge=0, le=1024)] = 1
    """Control steps that a decision takes, rounded up; so many actions of the old chunk are kept."""
    max_guidance: NotNegative = 5.0
    """Largest weight of the guidance, beta of the paper; 0 joins nothing but what is kept."""

    def build(self, policy: Policy) -> "RealTimeExecution":
        return RealTimeExecution(policy, self)


class RealTimeExecution(Execution):
    """Join chunks; the memory is what is left of the last one.

    Args:
        policy: predicts chunks that can be guided.
        config: delay and strength.

    Raises:
        ConfigError: it does not, or its chunks are too short.
    """

    def __init__(self, policy: Policy, config: RealTimeConfig) -> None:
        self._policy, self._config = require_chunks(policy, config), config
        self.num_action_steps, horizons = policy.horizons.num_action_steps, policy.horizons
        if self._policy.join_problem:
            raise ConfigError(f"rollout.execution = real_time: {self._policy.join_problem}")
        left = horizons.pred_horizon - horizons.obs_horizon + 1 - self.num_action_steps
        if config.delay > min(left, self.num_action_steps):
            raise ConfigError(
                f"rollout.execution.delay = {config.delay} is more than the {left} actions that are left of "
                f"a chunk, or than the {self.num_action_steps} between decisions; take at most "
                f"{min(left, self.num_action_steps)}"
            )

    def decide(
        self, observation: Observation, memory: Any, random: Random | None, num_steps: int
    ) -> tuple[Float[Tensor, "B n A"], Any]:
        policy, now = self._policy, self._policy.horizons.obs_horizon - 1
        # A chunk of which nothing is left leaves nothing to join.
        if memory is None or not memory.shape[1]:
            plan = policy.samples(observation, random, num_steps)[0][:, now:]
        else:
            fixed = memory[:, : self._config.delay]
            joint = self._joint(memory)
            steps = num_steps or max(policy.default_num_steps, STEPS)
            drawn = policy.samples(observation, random, steps, joint=joint)[0][:, now:]
            plan = torch.cat([fixed, drawn[:, fixed.shape[1] :]], dim=1)
        return plan[:, : self.num_action_steps], plan[:, self.num_action_steps :]

    def _joint(self, left: Float[Tensor, "B L A"]) -> Joint:
        """Put what is left of the old chunk at its instants; the others repeat the nearest."""
        horizons = self._policy.horizons
        where = (torch.tensor(horizons.predicted, device=left.device)).clamp(0, left.shape[1] - 1)
        soft = soft_mask(left.shape[1], self._config.delay)
        weight = left.new_zeros(horizons.pred_horizon)
        weight[horizons.obs_horizon - 1 :][: len(soft)] = torch.tensor(soft, device=left.device)
        return Joint(left[:, where], weight, self._config.max_guidance)


def soft_mask(left: int, delay: int) -> list[float]:
    """Return how firmly each action that is left holds the new chunk (equation 5 of the paper).

    Args:
        left: L, H - s in the paper.
        delay: actions that are fixed, d.
    """
    shares = [(left - i) / (left - delay + 1) for i in range(delay, left)]
    return [1.0] * delay + [c * math.expm1(c) / math.expm1(1) for c in shares]
