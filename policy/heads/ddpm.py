"""Noise prediction: DDPM (arXiv 2006.11239) and DDIM sampling (arXiv 2010.02502), as in Diffusion Policy.

    x_k = sqrt(abar_k) x + sqrt(1 - abar_k) e        k = 0 .. K-1, K = 100
    abar_k = cos^2(((k + 1) / K + s) / (1 + s) * pi/2), normalised at k = -1, betas at most 0.999, s = 0.008
    loss = |e_hat(x_k, k) - e|^2

DDIM visits any number of the K noise levels, evenly spread, the last one first; eta scales the fresh noise of
each step, 0 is deterministic, 1 with all K levels is DDPM's ancestral sampling.

B batch, T pred_horizon, N condition tokens, A action size, C condition width.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from vla.base.strict import NotNegative, Share
from vla.policy.batch import Draws
from vla.policy.heads.head import ActionHead, HeadConfig, Valid, masked_mean_square
from vla.policy.nn.action_transformer import ActionTransformer
from vla.policy.policy_config import HeadedConfig
from vla.policy.random import Random


class DdpmConfig(HeadConfig):
    """Noise prediction, sampled with DDIM."""

    type: Literal["ddpm"] = "ddpm"
    levels: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Noise levels of training, K."""
    clip: NotNegative = 1.0
    """Bound of a denoised action, as a multiple of the demonstrations' range about their mean; 0 is none."""
    eta: Share = 0.0
    """Fresh noise of each sampling step; 0 is deterministic, 1 is DDPM's."""

    def build(self, policy: HeadedConfig, action_dim: int, cond_tokens: int) -> "DdpmHead":
        network = ActionTransformer(policy, action_dim, cond_tokens, num_times=1, num_outputs=1)
        shape = (policy.pred_horizon, action_dim)
        return DdpmHead(network, cond_dim=policy.cond_dim, shape=shape, config=self)


class DdpmHead(ActionHead):
    """Objective and sampler around a noise network.

    Args:
        network: called with (x_k, cond, (k + 1) / K), answers with (e,).
        cond_dim: C, the width of the condition it expects.
        shape: (T, A), of a chunk.
        config: noise levels, clipping, eta.

    Attributes:
        lowest: [A], of the demonstrations' normalised actions. No number of standard deviations will do
            instead: a gripper that is open in 5 % of the frames is 4.4 of them away from the mean.
        highest: likewise.
    """

    default_num_steps = 10
    export_problem = "head 'ddpm' picks its noise levels as it goes; vla exports imf, flow and mlp"
    alpha_bar: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self, network: nn.Module, *, cond_dim: int, shape: tuple[int, int], config: DdpmConfig
    ) -> None:
        super().__init__(cond_dim, shape)
        self.network, self.config, action_dim = network, config, shape[1]
        self.register_buffer("alpha_bar", cosine_alpha_bar(config.levels), persistent=False)
        self.register_buffer("lowest", -torch.ones(action_dim))
        self.register_buffer("highest", torch.ones(action_dim))

    def fit_range(self, lowest: Float[Tensor, "A"], highest: Float[Tensor, "A"]) -> None:
        """Take the range of the normalised actions of the demonstrations."""
        self.lowest.copy_(lowest)
        self.highest.copy_(highest)

    def draw(self, rows: int, random: Random) -> Draws:
        """Draw noise and uniform noise levels."""
        return {"noise": random.normal(rows, *self.shape), "level": random.integers(self.config.levels, rows)}

    def compute_loss(
        self,
        cond: Float[Tensor, "B N C"],
        action: Float[Tensor, "B T A"],
        valid: Valid,
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the mean square error of the noise."""
        noise, level = draws["noise"], draws["level"]
        signal = self.alpha_bar[level][:, None, None]
        x_k = signal.sqrt() * action + (1 - signal).sqrt() * noise
        (e_hat,) = self.network(x_k, cond, self._time(level))
        loss = masked_mean_square(e_hat.float() - noise, valid).mean()
        return loss, {"e_mse": loss.detach()}

    @torch.no_grad()
    def sample(self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int) -> Float[Tensor, "B T A"]:
        """Denoise over `num_steps` of the K levels, at most K."""
        levels = sampling_levels(self.config.levels, num_steps)
        x_k = self.noise(cond, random)
        for level, following in zip(levels, [*levels[1:], None], strict=True):
            index = torch.full((len(x_k),), level, device=x_k.device)
            (e_hat,) = self.network(x_k, cond, self._time(index))
            signal = self.alpha_bar[level]
            target = torch.ones_like(signal) if following is None else self.alpha_bar[following]
            fresh = self.noise(cond, random) if self.config.eta and following is not None else None
            x_k = self._step(x_k, e_hat.float(), signal, target, fresh)
        return x_k

    def _step(
        self, x_k: Tensor, e_hat: Tensor, signal: Tensor, target: Tensor, fresh: Tensor | None
    ) -> Tensor:
        """Move from one noise level to a lower one (DDIM, equations 12 and 16)."""
        x_0 = (x_k - (1 - signal).sqrt() * e_hat) / signal.sqrt()
        if self.config.clip:
            # At the highest level x_0 is a difference of large numbers; without a bound it runs away.
            x_0 = x_0.clamp(self.config.clip * self.lowest, self.config.clip * self.highest)
            e_hat = (x_k - signal.sqrt() * x_0) / (1 - signal).sqrt()
        sigma = self.config.eta * ((1 - target) / (1 - signal) * (1 - signal / target)).clamp(min=0).sqrt()
        x_next = target.sqrt() * x_0 + (1 - target - sigma**2).clamp(min=0).sqrt() * e_hat
        if fresh is not None:
            x_next = x_next + sigma * fresh
        return x_next

    def _time(self, level: Tensor) -> Tensor:
        return (level + 1) / self.config.levels


def sampling_levels(levels: int, num_steps: int) -> list[int]:
    """Return the noise levels that a sampler visits, at most all of them: the last of each of equal parts.

    diffusers calls that trailing. Down to the first level, as before, the last evaluation had next to nothing
    left to remove, and of two steps it was as if there were one: error 1.36 instead of 0.50, of five 0.29
    instead of 0.27 (benchmarks/ddim_levels.py, docs/log.md).
    """
    steps = min(num_steps, levels)
    return [round(levels - part * levels / steps) - 1 for part in range(steps)]


def cosine_alpha_bar(
    levels: int, offset: float = 0.008, largest_beta: float = 0.999
) -> Float[Tensor, "levels"]:
    """Return the share of signal at each noise level (improved DDPM, arXiv 2102.09672, equation 17)."""
    time = torch.linspace(0, 1, levels + 1, dtype=torch.float64)
    signal = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
    return (signal[1:] / signal[:-1]).clamp(min=1 - largest_beta).cumprod(0).float()
