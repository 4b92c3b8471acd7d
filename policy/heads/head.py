"""What the agent asks of an action head, whatever its objective."""

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class ActionHead(nn.Module):
    """Learn and draw normalised action chunks.

    B batch, T pred_horizon, T_obs obs_horizon, A action size, C condition width.

    Attributes:
        cond_dim: C, the width of the condition of one observation step.
    """

    cond_dim: int

    @abstractmethod
    def compute_loss(
        self,
        cond: Float[Tensor, "B T_obs C"],
        action: Float[Tensor, "B T A"],
        valid: Bool[Tensor, "B T"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the loss, and figures worth logging.

        Args:
            cond: condition tokens.
            action: normalised actions, about unit scale.
            valid: False where an action is padding.
            generator: draws whatever is random, on the device of `action`.
        """

    @abstractmethod
    def sample(
        self,
        cond: Float[Tensor, "B T_obs C"],
        noise: Float[Tensor, "B T A"],
        num_steps: int = 1,
    ) -> Float[Tensor, "B T A"]:
        """Turn standard normal noise into one chunk a row, in `num_steps` network evaluations."""
