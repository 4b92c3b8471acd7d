"""What the agent asks of an action head, whatever its objective.

B batch, T pred_horizon, N condition tokens, A action size, C condition width.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vla.base.errors import ConfigError
from vla.base.family import Family
from vla.base.strict import StrictModel
from vla.policy.batch import Draws
from vla.policy.heads.joining import Target
from vla.policy.policy_config import HeadedConfig
from vla.policy.random import Random

Valid: TypeAlias = Bool[Tensor, "B T"] | Bool[Tensor, "B T A"]
"""Where there is something to learn: of whole actions, or of each of their numbers."""


class ActionHead(nn.Module):
    """Learn and draw normalised action chunks.

    Args:
        cond_dim: C, the width of a condition token.
        shape: (T, A), of a chunk.

    Attributes:
        default_num_steps: network evaluations a sample where nothing else is asked.
        grad_clip: largest norm of the gradients where `train.grad_clip` does not say.
        export_problem: why a graph for other programs cannot be made of it; empty where it can.
        needs_chunks: whether it asks for the demonstrations' chunks before it is trained.
        join_problem: why `sample_joined` is not there; empty where it is.
        temperature: of drawing tokens: below 1 the likelier ones gain, 0 takes the likeliest.
        temperature_problem: why that means nothing; empty where tokens are drawn.
    """

    default_num_steps: int
    grad_clip: float = 1.0
    export_problem = ""
    needs_chunks = False
    join_problem = "real-time chunking guides velocities; of the heads here imf and flow have some"
    temperature = 1.0
    temperature_problem = "only heads that draw tokens have a temperature: autoregressive and fast"

    def __init__(self, cond_dim: int, shape: tuple[int, int]) -> None:
        super().__init__()
        self.cond_dim, self.shape = cond_dim, shape

    def draw(self, rows: int, random: Random) -> Draws:
        """Draw everything random about one loss: noise and times; nothing where a head needs none.

        Apart from the loss itself, so that `compute_loss` is a plain function of tensors, which can be
        compiled and captured in a graph.

        Args:
            rows: B.
            random: the source of numbers.
        """
        return {}

    @abstractmethod
    def compute_loss(
        self,
        cond: Float[Tensor, "B N C"],
        action: Float[Tensor, "B T A"],
        valid: Valid,
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the loss, and figures worth logging.

        Args:
            cond: condition tokens.
            action: normalised actions, about unit scale.
            valid: False where an action is padding, or one of its numbers never moved.
            draws: what `draw` gave for this batch, on the device of `action`.
        """

    def fit_range(self, lowest: Float[Tensor, "A"], highest: Float[Tensor, "A"]) -> None:
        """Take the range of the normalised actions of the demonstrations; most heads do without."""

    def fit_chunks(self, blocks: Iterable[Float[Tensor, "n T A"]]) -> None:
        """Take the normalised chunks of the demonstrations, if it `needs_chunks`; after `fit_range`."""

    @abstractmethod
    def sample(self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int) -> Float[Tensor, "B T A"]:
        """Draw one chunk a row in `num_steps` network evaluations."""

    def sample_joined(
        self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int, target: Target
    ) -> Float[Tensor, "B T A"]:
        """Draw one chunk a row that joins another; see `vla.policy.heads.joining`.

        Raises:
            ConfigError: the head cannot.
        """
        raise ConfigError(self.join_problem)

    def noise(self, cond: Float[Tensor, "B N C"], random: Random) -> Float[Tensor, "B T A"]:
        """Draw standard normal noise of a chunk's shape, a row for each condition."""
        # shape[0]: len() would fix the batch size of an exported graph.
        return random.normal(cond.shape[0], *self.shape)


class HeadConfig(StrictModel):
    """Which action head, and its settings."""

    type: str

    @abstractmethod
    def build(self, policy: HeadedConfig, action_dim: int, cond_tokens: int) -> ActionHead:
        """Build the head, untrained.

        Args:
            policy: horizons, condition width, and the sizes of the network.
            action_dim: A.
            cond_tokens: N, those of all observation steps together; as many as steps where the fusion makes
                one of each.
        """


HEADS: Family[HeadConfig] = Family("action head", HeadConfig, "vla.policy.heads", default="imf")


def masked_mean(
    error: Float[Tensor, "B T A"], valid: Valid, of: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B"]:
    """Return each row's mean over what is valid.

    Args:
        error: per number.
        valid: what counts.
        of: applied to the error first, such as `torch.square`.
    """
    whole = valid if valid.ndim == 3 else valid[:, :, None]
    weight = whole.to(error.dtype).expand_as(error)
    return (of(error) * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1)


def masked_mean_square(error: Float[Tensor, "B T A"], valid: Valid) -> Float[Tensor, "B"]:
    """Return each row's mean square over what is valid."""
    return masked_mean(error, valid, torch.square)


def set_temperature(policy: nn.Module, temperature: float | None) -> None:
    """Let the head of a policy draw its tokens at another temperature than it was trained with; None is that.

    Raises:
        ConfigError: it draws none.
    """
    if temperature is None:
        return
    head = getattr(policy, "head", None)
    if not isinstance(head, ActionHead) or head.temperature_problem:
        raise ConfigError(f"rollout.temperature = {temperature:g}: {ActionHead.temperature_problem}")
    head.temperature = temperature
