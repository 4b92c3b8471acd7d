"""Deterministic regression: one chunk for one condition, by an MLP. The simplest thing that could work.

B batch, T pred_horizon, N condition tokens, A action size, C condition width.
"""

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


class MlpConfig(HeadConfig):
    """Deterministic regression."""

    type: Literal["mlp"] = "mlp"
    width: Width = 1024
    """Of the hidden layers."""
    layers: Depth = 3
    """Hidden layers."""
    loss: Literal["mse", "l1"] = "mse"
    """Of the chunk's error: its square, which regresses to the mean, or its size, to the median."""

    def build(self, policy: HeadedConfig, action_dim: int, cond_tokens: int) -> "RegressionHead":
        inputs, outputs = cond_tokens * policy.cond_dim, policy.pred_horizon * action_dim
        network = mlp(inputs, self.width, self.layers, outputs)
        return RegressionHead(network, policy, action_dim, self.loss)


class RegressionHead(ActionHead):
    """Map the flattened condition to the mean action chunk.

    Args:
        network: [B, N * C] to [B, T * A].
        policy: horizons and condition width.
        action_dim: A.
        loss: "mse" or "l1".
    """

    default_num_steps = 1

    def __init__(
        self,
        network: nn.Module,
        policy: HeadedConfig,
        action_dim: int,
        loss: Literal["mse", "l1"] = "mse",
    ) -> None:
        super().__init__(policy.cond_dim, (policy.pred_horizon, action_dim))
        self.network, self._loss = network, loss

    def compute_loss(
        self,
        cond: Float[Tensor, "B N C"],
        action: Float[Tensor, "B T A"],
        valid: Valid,
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the mean square, or mean absolute, error of the chunk."""
        of = torch.abs if self._loss == "l1" else torch.square
        loss = masked_mean(self._predict(cond) - action, valid, of).mean()
        return loss, {f"action_{self._loss}": loss.detach()}

    @torch.no_grad()
    def sample(self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int) -> Float[Tensor, "B T A"]:
        """Return the regressed chunk; noise and steps make no difference."""
        return self._predict(cond)

    def _predict(self, cond: Float[Tensor, "B N C"]) -> Float[Tensor, "B T A"]:
        return self.network(cond.flatten(1)).unflatten(1, self.shape)
