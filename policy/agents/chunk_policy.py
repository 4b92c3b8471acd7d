"""Policies that predict whole chunks, past actions among them: what the ways of executing chunks ask for.

B batch, T_obs obs_horizon, T pred_horizon, A action size, N samples.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vla.cache.stream import Observation
from vla.policy.agents.policy import Policy
from vla.policy.random import Random


@dataclass(frozen=True)
class Joint:
    """Actions under way that a new chunk shall join."""

    actions: Float[Tensor, "B T A"]
    """In the robot's units, at the predicted instants; anything where they weigh nothing."""
    weight: Float[Tensor, "T"]
    """1 where they are fixed, 0 where the chunk is free."""
    max_guidance: float
    """Largest weight of the guidance, beta of arXiv 2506.07339."""


class ChunkPolicy(Policy):
    """A policy whose every sample is a chunk over `horizons.predicted`.

    Attributes:
        join_problem: why its samples cannot be made to join others; empty where they can.
    """

    join_problem: str = ""

    @abstractmethod
    def samples(
        self,
        observation: Observation,
        random: Random | None,
        num_steps: int,
        *,
        count: int = 1,
        joint: Joint | None = None,
    ) -> Float[Tensor, "N B T A"]:
        """Draw chunks, in the robot's units; the first action of each is the first observation's.

        Args:
            observation: see `Policy.act`.
            random: where samples shall be repeatable; torch's default generator otherwise.
            num_steps: network evaluations of the sampler; 0 takes the policy's own.
            count: N.
            joint: what they shall join.
        """

    @torch.no_grad()
    def predict_action_chunk(
        self, observation: Observation, num_steps: int = 0, random: Random | None = None
    ) -> Float[Tensor, "B T A"]:
        """Draw one action chunk a row, in the robot's units; its first action is the first observation's.

        Args:
            observation: see `Policy.act`.
            num_steps: network evaluations of the sampler; 0 takes the policy's own.
            random: where samples shall be repeatable; torch's default generator otherwise.
        """
        return self.samples(observation, random, num_steps)[0]

    def act(
        self, observation: Observation, memory: Any = None, random: Random | None = None, num_steps: int = 0
    ) -> tuple[Float[Tensor, "B num_action_steps A"], Any]:
        """Choose the next actions of a batch of robots; it needs no memory. See `Policy.act`."""
        return self.predict_action_chunk(observation, num_steps, random)[:, self.horizons.executed], None
