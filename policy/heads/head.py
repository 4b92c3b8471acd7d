"""What the agent asks of an action head, whatever its objective.

B batch, T pred_horizon, T_obs obs_horizon, A action size, C condition width.
"""

from abc import abstractmethod
from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from vla.policy.training.sampling import RowRandom

Noise = Callable[[], Float[Tensor, "B T A"]]
"""Each call draws standard normal noise of a chunk's shape."""

Draws = dict[str, Tensor]
"""Random tensors of one batch, a row each."""


class ActionHead(nn.Module):
    """Learn and draw normalised action chunks.

    Attributes:
        cond_dim: C, the width of the condition of one observation step.
        default_num_steps: network evaluations a sample where nothing else is asked.
    """

    cond_dim: int
    default_num_steps: int

    @abstractmethod
    def draw(self, rows: int, shape: tuple[int, int], random: RowRandom) -> Draws:
        """Draw everything random about one loss: noise and times.

        Apart from the loss itself, so that `compute_loss` is a plain function of tensors, which can be
        compiled and captured in a graph.

        Args:
            rows: B.
            shape: (T, A).
            random: the source of numbers.
        """

    @abstractmethod
    def compute_loss(
        self,
        cond: Float[Tensor, "B T_obs C"],
        action: Float[Tensor, "B T A"],
        valid: Bool[Tensor, "B T"],
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the loss, and figures worth logging.

        Args:
            cond: condition tokens.
            action: normalised actions, about unit scale.
            valid: False where an action is padding.
            draws: what `draw` gave for this batch, on the device of `action`.
        """

    def fit_range(self, lowest: Float[Tensor, "A"], highest: Float[Tensor, "A"]) -> None:
        """Take the range of the normalised actions of the demonstrations; most heads do without."""

    @abstractmethod
    def sample(
        self, cond: Float[Tensor, "B T_obs C"], noise: Noise, num_steps: int
    ) -> Float[Tensor, "B T A"]:
        """Draw one chunk a row in `num_steps` network evaluations."""


def masked_mean_square(error: Float[Tensor, "B T A"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B"]:
    """Return each row's mean square over its valid actions."""
    weight = valid[:, :, None].to(error.dtype)
    return (error.square() * weight).sum(dim=(1, 2)) / (weight.sum(dim=(1, 2)) * error.shape[-1]).clamp(min=1)
