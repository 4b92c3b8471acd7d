"""An autoregressive head: the numbers of a chunk one after the other, each as one of many bins.

    bins       equal parts of each dimension's range in the demonstrations; a number is the middle of its bin
    sequence   [ condition token 1 .. N | number 1 .. T * A ], action by action
    loss       cross-entropy of each number, given the condition and the numbers before it
    sample     drawn number after number; temperature 0 takes the likeliest

Every mode of the demonstrations is kept, at the cost of T * A small steps a decision. RT-1 (arXiv 2212.06817)
and RT-2 (arXiv 2307.15818) bin actions likewise.

B batch, T pred_horizon, N condition tokens, A action size, C condition width, D model width.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vla.base.strict import NotNegative
from vla.policy.batch import Draws
from vla.policy.heads.head import ActionHead, HeadConfig, Valid, masked_mean
from vla.policy.nn.causal import CausalTransformer
from vla.policy.policy_config import HeadedConfig
from vla.policy.random import Random


class AutoregressiveConfig(HeadConfig):
    """One number of the chunk after the other, in bins."""

    type: Literal["autoregressive"] = "autoregressive"
    bins: Annotated[int, Field(ge=2, le=4096)] = 256
    """Of each dimension."""
    temperature: NotNegative = 0.5
    """Of drawing: below 1 the likelier bins gain, 0 takes the likeliest."""

    def build(self, policy: HeadedConfig, action_dim: int, cond_tokens: int) -> "AutoregressiveHead":
        return AutoregressiveHead(policy, action_dim, cond_tokens, self)


class AutoregressiveHead(ActionHead):
    """Learn and draw a chunk number by number.

    Args:
        policy: horizons, condition width, and the sizes of the network.
        action_dim: A.
        cond_tokens: N.
        config: bins and temperature.

    Attributes:
        lowest: [A], where the first bin begins, of normalised actions.
        highest: [A], where the last one ends.
    """

    default_num_steps = 1
    temperature_problem = ""
    export_problem = "head 'autoregressive' draws one number after the other; vla exports imf, flow and mlp"
    lowest: Tensor
    highest: Tensor

    def __init__(
        self, policy: HeadedConfig, action_dim: int, cond_tokens: int, config: AutoregressiveConfig
    ) -> None:
        super().__init__(policy.cond_dim, (policy.pred_horizon, action_dim))
        self.config, width, length = config, policy.n_emb, policy.pred_horizon * action_dim
        self.temperature = config.temperature
        self.cond_in = nn.Linear(policy.cond_dim, width)
        self.bin_in = nn.Embedding(config.bins, width)
        positions = cond_tokens + length - 1  # nothing follows the last number
        self.stack = CausalTransformer(width, policy.n_layer, policy.n_head, positions)
        self.bin_out = nn.Linear(width, config.bins)
        self.register_buffer("lowest", -torch.ones(action_dim))
        self.register_buffer("highest", torch.ones(action_dim))

    def fit_range(self, lowest: Float[Tensor, "A"], highest: Float[Tensor, "A"]) -> None:
        """Take the range of the normalised actions of the demonstrations."""
        self.lowest.copy_(lowest)
        self.highest.copy_(highest)

    def to_bins(self, action: Float[Tensor, "*batch A"]) -> Int64[Tensor, "*batch A"]:
        """Return the bins of normalised actions: the first or last of what lies outside of the range.

        A dimension that never moved has only the first.
        """
        width = self.highest - self.lowest
        share = torch.where(width > 0, (action - self.lowest) / width.where(width > 0, 1.0), 0.0)
        return (share * self.config.bins).floor().clamp(0, self.config.bins - 1).long()

    def from_bins(self, index: Int64[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Return the middles of bins."""
        return self.lowest + (index + 0.5) / self.config.bins * (self.highest - self.lowest)

    def compute_loss(
        self,
        cond: Float[Tensor, "B N C"],
        action: Float[Tensor, "B T A"],
        valid: Valid,
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the cross-entropy a number [nat], and the error of the likeliest bins."""
        index = self.to_bins(action)
        logits = self._logits(cond, index.flatten(1))
        error = cross_entropy(logits.transpose(1, 2).float(), index.flatten(1), reduction="none")
        loss = masked_mean(error.unflatten(1, self.shape), valid, torch.Tensor.clone).mean()
        likeliest = self.from_bins(logits.argmax(dim=-1).unflatten(1, self.shape))
        off = masked_mean(likeliest - action, valid, torch.square).mean()
        return loss, {"nll": loss.detach(), "action_mse": off.detach()}

    def _logits(self, cond: Float[Tensor, "B N C"], index: Int64[Tensor, "B L"]) -> Float[Tensor, "B L bins"]:
        """Return what is expected of each number, given those before it."""
        tokens = torch.cat([self.cond_in(cond), self.bin_in(index[:, :-1])], dim=1)
        hidden, _ = self.stack(tokens)
        return self.bin_out(hidden[:, cond.shape[1] - 1 :])

    @torch.no_grad()
    def sample(self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int) -> Float[Tensor, "B T A"]:
        """Draw a chunk number by number; `num_steps` makes no difference."""
        # One uniform number for each of the chunk's, from the noise that every head is given.
        uniform = torch.special.ndtr(self.noise(cond, random)).flatten(1)
        tokens, kept, drawn = self.cond_in(cond), None, list[Tensor]()
        for position in range(uniform.shape[1]):
            hidden, kept = self.stack(tokens, kept)
            logits = self.bin_out(hidden[:, -1]).float()
            drawn.append(choose(logits, self.temperature, uniform[:, position]))
            tokens = self.bin_in(drawn[-1])[:, None]
        return self.from_bins(torch.stack(drawn, dim=1).unflatten(1, self.shape))


def choose(
    logits: Float[Tensor, "B V"], temperature: float, uniform: Float[Tensor, "B"]
) -> Int64[Tensor, "B"]:
    """Return the token in which a uniform number lies, of the cumulative distribution.

    Args:
        logits: of each of V tokens.
        temperature: 0 takes the likeliest.
        uniform: within [0, 1].
    """
    if not temperature:
        return logits.argmax(dim=-1)
    below = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
    return torch.searchsorted(below, uniform[:, None].contiguous())[:, 0].clamp(max=logits.shape[1] - 1)
