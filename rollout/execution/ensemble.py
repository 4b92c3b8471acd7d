"""Temporal ensembling (ACT, arXiv 2304.13705, section IV-A): the mean of what all chunks so far say of now.

    chunk of step 0    a0 a1 a2 a3
    chunk of step 1       b1 b2 b3 b4            weight of the i-th chunk that reaches a step, the
    chunk of step 2          c2 c3 c4 c5         oldest one first: exp(-m i)
    executed           a0 ab abc ...

As in ACT and in LeRobot, m > 0 gives older chunks more weight. Rotations are averaged as six numbers, not as
quaternions or angles.

B batch, A action size, L actions from now on.
"""

import math
from typing import Annotated, Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from vla.cache.stream import Observation
from vla.policy.agents.policy import Policy
from vla.policy.random import Random
from vla.rollout.execution.execution import Execution, ExecutionConfig, require_chunks


class EnsembleConfig(ExecutionConfig):
    """Decide at every step, and execute the weighted mean of all chunks that reach it."""

    type: Literal["ensemble"] = "ensemble"
    temporal_ensemble_coeff: Annotated[float, Field(ge=-0.5, le=0.5)] = 0.01
    """m: 0 weighs all chunks alike, more gives the older ones more weight, less than 0 the newer ones."""

    def build(self, policy: Policy) -> "EnsembleExecution":
        return EnsembleExecution(policy, self)


class EnsembleExecution(Execution):
    """Average chunks; the memory is what is left of them, the oldest first.

    Args:
        policy: predicts chunks.
        config: the weights.

    Raises:
        ConfigError: it does not.
    """

    num_action_steps = 1

    def __init__(self, policy: Policy, config: EnsembleConfig) -> None:
        self._policy, self._coeff = require_chunks(policy, config), config.temporal_ensemble_coeff

    def decide(
        self, observation: Observation, memory: Any, random: Random | None, num_steps: int
    ) -> tuple[Float[Tensor, "B n A"], Any]:
        form, now = self._policy.action_form, self._policy.horizons.obs_horizon - 1
        chunk = self._policy.samples(observation, random, num_steps)[0]
        plans: list[Float[Tensor, "B _L _P"]] = [*(memory or ()), form.to_blend(chunk[:, now:])]
        weights = [math.exp(-self._coeff * age) for age in range(len(plans))]
        total = sum(weights)
        mean = sum(weight / total * plan[:, :1] for weight, plan in zip(weights, plans, strict=True))
        assert isinstance(mean, Tensor)
        left = [plan[:, 1:] for plan in plans if plan.shape[1] > 1]
        return form.from_blend(mean), left
