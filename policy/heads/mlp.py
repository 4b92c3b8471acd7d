"""Deterministic regression: one chunk for one condition, by an MLP. The simplest thing that could work.

B batch, T pred_horizon, T_obs obs_horizon, A action size, C condition width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vla.policy.heads.head import ActionHead, Draws, Noise, masked_mean_square
from vla.policy.policy_config import PolicyConfig
from vla.policy.training.sampling import RowRandom


class MlpHead(ActionHead):
    """Map the flattened condition to the mean action chunk.

    Args:
        config: horizons, condition width, and the MLP's width and depth.
        action_dim: A.
    """

    default_num_steps = 1

    def __init__(self, config: PolicyConfig, action_dim: int) -> None:
        super().__init__()
        self.cond_dim, self._shape = config.cond_dim, (config.pred_horizon, action_dim)
        layers: list[nn.Module] = []
        width = config.obs_horizon * config.cond_dim
        for _ in range(config.mlp.layers):
            layers += [nn.Linear(width, config.mlp.width), nn.SiLU(), nn.RMSNorm(config.mlp.width)]
            width = config.mlp.width
        self.network = nn.Sequential(*layers, nn.Linear(width, config.pred_horizon * action_dim))

    def draw(self, rows: int, shape: tuple[int, int], random: RowRandom) -> Draws:
        """Draw nothing."""
        return {}

    def compute_loss(
        self,
        cond: Float[Tensor, "B T_obs C"],
        action: Float[Tensor, "B T A"],
        valid: Bool[Tensor, "B T"],
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the mean square error of the chunk."""
        loss = masked_mean_square(self._predict(cond).float() - action, valid).mean()
        return loss, {"action_mse": loss.detach()}

    @torch.no_grad()
    def sample(
        self, cond: Float[Tensor, "B T_obs C"], noise: Noise, num_steps: int
    ) -> Float[Tensor, "B T A"]:
        """Return the regressed chunk; noise and steps make no difference."""
        return self._predict(cond)

    def _predict(self, cond: Tensor) -> Tensor:
        return self.network(cond.flatten(1)).unflatten(1, self._shape)
