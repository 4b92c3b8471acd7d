"""Gaussian regression: a mean and a spread of each number of the chunk, by an MLP.

    loss = (a - mean)^2 / (2 std^2) + log std + log(2 pi) / 2        the negative log-likelihood
    sample = mean + std * noise                                      reparameterised

It has one mode: between two equally good ways it drives through the middle, with a wide spread.

B batch, T pred_horizon, N condition tokens, A action size, C condition width.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.base.strict import Depth, Width
from vla.policy.batch import Draws
from vla.policy.heads.head import ActionHead, HeadConfig, Valid, masked_mean
from vla.policy.nn.mlp import mlp
from vla.policy.policy_config import HeadedConfig
from vla.policy.random import Random

LOG_STD_RANGE = (-20.0, 2.0)


class GaussianConfig(HeadConfig):
    """A normal distribution of each number."""

    type: Literal["gaussian"] = "gaussian"
    width: Width = 1024
    """Of the hidden layers."""
    layers: Depth = 3
    """Hidden layers."""
    deterministic: bool = False
    """Command the mean, and draw nothing."""

    def build(self, policy: HeadedConfig, action_dim: int, cond_tokens: int) -> "GaussianHead":
        numbers = policy.pred_horizon * action_dim
        network = mlp(cond_tokens * policy.cond_dim, self.width, self.layers, 2 * numbers)
        return GaussianHead(network, policy, action_dim, deterministic=self.deterministic)


class GaussianHead(ActionHead):
    """Map the flattened condition to a normal distribution of the chunk.

    Args:
        network: [B, N * C] to [B, 2 * T * A].
        policy: horizons and condition width.
        action_dim: A.
        deterministic: command the mean.
    """

    default_num_steps = 1

    def __init__(
        self, network: nn.Module, policy: HeadedConfig, action_dim: int, *, deterministic: bool = False
    ) -> None:
        super().__init__(policy.cond_dim, (policy.pred_horizon, action_dim))
        self.network, self._deterministic = network, deterministic

    def compute_loss(
        self,
        cond: Float[Tensor, "B N C"],
        action: Float[Tensor, "B T A"],
        valid: Valid,
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the negative log-likelihood a number [nat]."""
        mean, log_std = self._predict(cond)
        error = ((action - mean) * (-log_std).exp()).square() / 2 + log_std + math.log(2 * math.pi) / 2
        loss = masked_mean(error, valid, torch.Tensor.clone).mean()
        spread = masked_mean(log_std, valid, torch.exp).mean()
        return loss, {"nll": loss.detach(), "action_std": spread.detach()}

    @torch.no_grad()
    def sample(self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int) -> Float[Tensor, "B T A"]:
        """Draw from the distribution; steps make no difference."""
        mean, log_std = self._predict(cond)
        return mean if self._deterministic else mean + log_std.exp() * self.noise(cond, random)

    def _predict(self, cond: Float[Tensor, "B N C"]) -> tuple[Float[Tensor, "B T A"], Float[Tensor, "B T A"]]:
        mean, log_std = self.network(cond.flatten(1)).unflatten(1, (2, *self.shape)).unbind(1)
        return mean, log_std.clamp(*LOG_STD_RANGE)
