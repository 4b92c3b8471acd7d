"""Chunk after chunk: the usual way (Diffusion Policy, arXiv 2303.04137), and all that every policy can do."""

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from vla.cache.stream import Observation
from vla.policy.agents.policy import Policy
from vla.policy.random import Random
from vla.rollout.execution.execution import Execution, ExecutionConfig


class ChunkConfig(ExecutionConfig):
    """The first `policy.num_action_steps` actions of each chunk, then the next chunk."""

    type: Literal["chunk"] = "chunk"

    def build(self, policy: Policy) -> "ChunkExecution":
        return ChunkExecution(policy)


class ChunkExecution(Execution):
    """Do as the policy says; the memory is the policy's.

    Args:
        policy: any.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy, self.num_action_steps = policy, policy.horizons.num_action_steps

    def decide(
        self, observation: Observation, memory: Any, random: Random | None, num_steps: int
    ) -> tuple[Float[Tensor, "B n A"], Any]:
        return self._policy.act(observation, memory, random, num_steps)
