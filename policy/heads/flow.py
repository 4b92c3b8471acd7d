"""Flow matching (arXiv 2210.02747), the linear path: the baseline that improved MeanFlow shortens.

    t = 0 data, t = 1 noise     x_t = (1 - t) x + t e     v = e - x     loss = |v_hat(x_t, t) - v|^2

Sampling integrates dx/dt = v_hat from t = 1 to 0 with Euler steps. In one step it returns the mean of
all chunks that fit the condition, whatever the noise.

B batch, T pred_horizon, N condition tokens, A action size, C condition width.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.policy.batch import Draws
from vla.policy.heads.head import ActionHead, HeadConfig, Valid, masked_mean_square
from vla.policy.heads.joining import Target, sample_joined
from vla.policy.nn.action_transformer import ActionTransformer
from vla.policy.policy_config import HeadedConfig
from vla.policy.random import Random


class FlowConfig(HeadConfig):
    """Flow matching; it has no settings of its own."""

    type: Literal["flow"] = "flow"

    def build(self, policy: HeadedConfig, action_dim: int, cond_tokens: int) -> "FlowHead":
        network = ActionTransformer(policy, action_dim, cond_tokens, num_times=1, num_outputs=1)
        return FlowHead(network, cond_dim=policy.cond_dim, shape=(policy.pred_horizon, action_dim))


class FlowHead(ActionHead):
    """Objective and sampler around a velocity network.

    Args:
        network: called with (x_t, cond, t), answers with (v,).
        cond_dim: C, the width of the condition it expects.
        shape: (T, A), of a chunk.
    """

    default_num_steps = 10
    join_problem = ""

    def __init__(self, network: nn.Module, *, cond_dim: int, shape: tuple[int, int]) -> None:
        super().__init__(cond_dim, shape)
        self.network = network

    def draw(self, rows: int, random: Random) -> Draws:
        """Draw noise and uniform times."""
        return {"noise": random.normal(rows, *self.shape), "t": random.uniform(rows)}

    def compute_loss(
        self,
        cond: Float[Tensor, "B N C"],
        action: Float[Tensor, "B T A"],
        valid: Valid,
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the mean square error of the velocity."""
        noise, t = draws["noise"], draws["t"]
        (v_hat,) = self.network(torch.lerp(action, noise, t[:, None, None]), cond, t)
        loss = masked_mean_square(v_hat.float() - (noise - action), valid).mean()
        return loss, {"v_mse": loss.detach()}

    @torch.no_grad()
    def sample(self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int) -> Float[Tensor, "B T A"]:
        """Integrate from t = 1 to 0 with Euler steps of equal length."""
        x_t = self.noise(cond, random)
        for step in range(num_steps):
            t = x_t.new_full((x_t.shape[0],), 1 - step / num_steps)
            (v_hat,) = self.network(x_t, cond, t)
            x_t = x_t - v_hat / num_steps
        return x_t

    def sample_joined(
        self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int, target: Target
    ) -> Float[Tensor, "B T A"]:
        """Integrate guided velocities likewise."""

        def velocity(x_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
            (v_hat,) = self.network(x_t, cond, t)
            return v_hat

        return sample_joined(velocity, self.noise(cond, random), num_steps, target)
