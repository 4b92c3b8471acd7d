"""FAST: a language of action chunks, learned by byte pairs and spoken by a causal transformer.

    tokens     cosine transform, rounding and byte-pair encoding (`vla.policy.nn.action_tokens`)
    sequence   [ condition token 1 .. N | token 1 .. M | end ]
    loss       cross-entropy of each token and of the end, given the condition and the tokens before it
    sample     drawn token after token until the end; temperature 0 takes the likeliest

After pi0-FAST (arXiv 2501.09747). A smooth chunk takes a few tokens; `autoregressive` takes one a number.
A chunk is one text: where a demonstration ends within it, to stay there is learned.

B batch, T pred_horizon, N condition tokens, A action size, C condition width, M tokens of the longest chunk.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vla.base.errors import ConfigError
from vla.base.strict import NotNegative, Positive
from vla.policy.batch import Draws
from vla.policy.heads.autoregressive import choose
from vla.policy.heads.head import ActionHead, HeadConfig, Valid
from vla.policy.nn.action_tokens import END, PAD, ActionTokens
from vla.policy.nn.causal import CausalTransformer
from vla.policy.policy_config import HeadedConfig
from vla.policy.random import Random


class FastConfig(HeadConfig):
    """Cosine-transformed chunks as byte-pair tokens."""

    type: Literal["fast"] = "fast"
    scale: Positive = 10.0
    """Steps to which a coefficient of 1 is rounded; more keep finer motions, in more tokens."""
    vocabulary: Annotated[int, Field(ge=2, le=16384)] = 1024
    """Most tokens, those of single symbols among them."""
    temperature: NotNegative = 0.5
    """Of drawing: below 1 the likelier tokens gain, 0 takes the likeliest."""

    def build(self, policy: HeadedConfig, action_dim: int, cond_tokens: int) -> "FastHead":
        return FastHead(policy, action_dim, cond_tokens, self)


class FastHead(ActionHead):
    """Learn and draw a chunk token by token.

    Args:
        policy: horizons, condition width, and the sizes of the network.
        action_dim: A.
        cond_tokens: N.
        config: tokens and temperature.

    Attributes:
        tokens: the code, learned by `fit_chunks`.
        lowest: [A], of normalised actions; becomes -1.
        highest: [A], becomes 1.

    Raises:
        ConfigError: the vocabulary has no room for the single symbols.
    """

    default_num_steps = 1
    temperature_problem = ""
    export_problem = "head 'fast' draws one token after the other; vla exports imf, flow and mlp"
    needs_chunks = True
    lowest: Tensor
    highest: Tensor

    def __init__(self, policy: HeadedConfig, action_dim: int, cond_tokens: int, config: FastConfig) -> None:
        super().__init__(policy.cond_dim, (policy.pred_horizon, action_dim))
        self.temperature = config.temperature
        self.tokens = ActionTokens(self.shape, config.scale, config.vocabulary)
        if config.vocabulary < self.tokens.base:
            raise ConfigError(
                f"policy.head.vocabulary = {config.vocabulary} has no room for the {self.tokens.base} single "
                f"symbols of scale {config.scale:g}; take {2 * self.tokens.base} or more, or a smaller scale"
            )
        self.config, width = config, policy.n_emb
        self.most_tokens = policy.pred_horizon * action_dim
        self.cond_in = nn.Linear(policy.cond_dim, width)
        self.token_in = nn.Embedding(config.vocabulary, width)
        self.stack = CausalTransformer(width, policy.n_layer, policy.n_head, cond_tokens + self.most_tokens)
        self.token_out = nn.Linear(width, config.vocabulary)
        self.register_buffer("lowest", -torch.ones(action_dim))
        self.register_buffer("highest", torch.ones(action_dim))

    def fit_range(self, lowest: Float[Tensor, "A"], highest: Float[Tensor, "A"]) -> None:
        """Take the range of the normalised actions of the demonstrations."""
        self.lowest.copy_(lowest)
        self.highest.copy_(highest)

    def fit_chunks(self, blocks: Iterable[Float[Tensor, "n T A"]]) -> None:
        """Learn the code on the demonstrations' normalised chunks."""
        self.tokens.learn(self._to_unit(block) for block in blocks)

    def compute_loss(
        self,
        cond: Float[Tensor, "B N C"],
        action: Float[Tensor, "B T A"],
        valid: Valid,
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the cross-entropy a token [nat], and how many tokens a chunk has; `valid` is not asked."""
        index = self.tokens.encode(self._to_unit(action))
        begun = torch.cat([self.cond_in(cond), self.token_in(index[:, :-1].clamp(min=END))], dim=1)
        hidden, _ = self.stack(begun)
        logits = self.token_out(hidden[:, cond.shape[1] - 1 :]).float()
        loss = cross_entropy(logits.transpose(1, 2), index, ignore_index=PAD)
        return loss, {"nll": loss.detach(), "tokens": (index > END).sum(dim=1).float().mean()}

    @torch.no_grad()
    def sample(self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int) -> Float[Tensor, "B T A"]:
        """Draw a chunk token by token; `num_steps` makes no difference."""
        # Not from the chunk's noise, as bins do: it is 0 where a joint rests, and tokens are of all joints.
        uniform = random.uniform(cond.shape[0], self.most_tokens)
        begun, kept, drawn = self.cond_in(cond), None, list[Tensor]()
        ended = torch.zeros(len(uniform), dtype=torch.bool, device=cond.device)
        for position in range(self.most_tokens):
            hidden, kept = self.stack(begun, kept)
            logits = self.token_out(hidden[:, -1]).float()
            logits[:, self.tokens.known :] = -torch.inf  # fewer pairs than there is room for may be known
            token = choose(logits, self.temperature, uniform[:, position])
            ended |= token == END
            drawn.append(token.masked_fill(ended, END))
            if ended.all():
                break
            begun = self.token_in(drawn[-1])[:, None]
        return self._from_unit(self.tokens.decode(torch.stack(drawn, dim=1)))

    def _to_unit(self, action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Bring the demonstrations' range to [-1, 1]; what never moved to 0."""
        half = (self.highest - self.lowest) / 2
        share = (action - self.lowest) / half.where(half > 0, 1.0) - 1
        return torch.where(half > 0, share.clamp(-1, 1), 0.0)

    def _from_unit(self, action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        return self.lowest + (action.clamp(-1, 1) + 1) / 2 * (self.highest - self.lowest)
