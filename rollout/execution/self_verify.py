"""Self-verification (arXiv 2505.09561): of several chunks the one that agrees best with what was just done.

A predicted chunk begins at the first observation, so it says what the actions before now should have been. Of
chunks that go different ways, that of the way under way has them right.

    observed        o-1  o0
    candidates      a-1  a0  a1  a2 ...     sampled
    executed        e-1                     chosen: the smallest mean square of (a - e) / std

B batch, N candidates, H executed actions that are known, T pred_horizon, A action size.
"""

from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from vla.base.errors import ConfigError
from vla.cache.stream import Observation
from vla.policy.agents.policy import Policy
from vla.policy.random import Random
from vla.rollout.execution.execution import Execution, ExecutionConfig, require_chunks


class SelfVerifyConfig(ExecutionConfig):
    """Draw several chunks, and execute the one whose past is most like what was executed."""

    type: Literal["self_verify"] = "self_verify"
    candidates: Annotated[int, Field(ge=2, le=1024)] = 8
    """Chunks of each decision; each costs a run of the action head."""

    def build(self, policy: Policy) -> "SelfVerifyExecution":
        return SelfVerifyExecution(policy, self)


class SelfVerifyExecution(Execution):
    """Choose among chunks; the memory is what was executed before now.

    Args:
        policy: predicts chunks that begin in the past.
        config: how many.

    Raises:
        ConfigError: it does not, or sees only now.
    """

    def __init__(self, policy: Policy, config: SelfVerifyConfig) -> None:
        self._policy, self._candidates = require_chunks(policy, config), config.candidates
        self.num_action_steps = policy.horizons.num_action_steps
        if policy.horizons.obs_horizon < 2:
            raise ConfigError(
                "rollout.execution = self_verify compares predicted past actions, and a policy of "
                "policy.obs_horizon = 1 predicts none; train with 2 or more"
            )

    def decide(
        self, observation: Observation, memory: Any, random: Random | None, num_steps: int
    ) -> tuple[Float[Tensor, "B n A"], Any]:
        policy, executed = self._policy, self._policy.horizons.executed
        if memory is None:
            chosen = policy.samples(observation, random, num_steps)[0]
            done = chosen[:, executed]
        else:
            drawn = policy.samples(observation, random, num_steps, count=self._candidates)
            chosen = drawn[self.nearest(drawn, memory), torch.arange(drawn.shape[1], device=drawn.device)]
            done = torch.cat([memory, chosen[:, executed]], dim=1)
        return chosen[:, executed], done[:, -(policy.horizons.obs_horizon - 1) :]

    def nearest(
        self, drawn: Float[Tensor, "N B T A"], executed: Float[Tensor, "B H A"]
    ) -> Int64[Tensor, "B"]:
        """Return which candidate of each robot agrees best with what it did, the first of equals."""
        form, now = self._policy.action_form, self._policy.horizons.obs_horizon - 1
        past = drawn[:, :, now - executed.shape[1] : now]
        error = (form.to_blend(past) - form.to_blend(executed)) / self._policy.action_standardize.std
        return error.square().mean(dim=(-2, -1)).argmin(dim=0)
