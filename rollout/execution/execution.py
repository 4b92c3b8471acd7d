"""What a live policy asks of a way of executing chunks. It keeps nothing: what it must know comes back to it.

Whoever drives a policy hands over the memory of the last decision of these episodes, whatever it is: the
evaluation one of a batch of robots, the server one of each client.

B batch, n actions between decisions, A action size.
"""

from abc import abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vla.base.errors import ConfigError
from vla.base.family import Family
from vla.base.strict import StrictModel
from vla.cache.stream import Observation
from vla.policy.agents.chunk_policy import ChunkPolicy
from vla.policy.agents.policy import Policy
from vla.policy.random import Random


class Execution:
    """Decide what is executed of what a policy predicts.

    Attributes:
        num_action_steps: n.
    """

    num_action_steps: int

    @abstractmethod
    def decide(
        self, observation: Observation, memory: Any, random: Random | None, num_steps: int
    ) -> tuple[Float[Tensor, "B n A"], Any]:
        """Choose the next actions of a batch of robots.

        Args:
            observation: see `Policy.act`.
            memory: what this answered the last time, n control steps ago; None at the start of an episode.
            random: where samples shall be repeatable.
            num_steps: sampling steps; 0 takes the policy's own.

        Returns:
            The actions in the robot's units, the first one for now; and the memory.
        """


class ExecutionConfig(StrictModel):
    """What is executed of the chunks that a policy predicts."""

    type: str

    @abstractmethod
    def build(self, policy: Policy) -> Execution:
        """Build it for a policy.

        Raises:
            ConfigError: the policy does not predict what it needs.
        """


EXECUTIONS: Family[ExecutionConfig] = Family(
    "way of executing chunks", ExecutionConfig, "vla.rollout.execution", default="chunk"
)


def require_chunks(policy: Policy, config: ExecutionConfig) -> ChunkPolicy:
    """Return a policy that predicts whole chunks.

    Raises:
        ConfigError: it does not.
    """
    if not isinstance(policy, ChunkPolicy):
        raise ConfigError(
            f"rollout.execution = {config.type} needs a policy that predicts whole chunks, and "
            f"'{policy.config.policy.type}' does not; take rollout.execution = chunk"
        )
    return policy
