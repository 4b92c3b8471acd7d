"""Noise prediction: DDPM (arXiv 2006.11239) and DDIM sampling (arXiv 2010.02502), as in Diffusion Policy.

    x_k = sqrt(abar_k) x + sqrt(1 - abar_k) e        k = 0 .. K-1, K = 100
    abar_k = cos^2(((k + 1) / K + s) / (1 + s) * pi/2), normalised at k = -1, betas at most 0.999, s = 0.008
    loss = |e_hat(x_k, k) - e|^2

DDIM visits any number of the K noise levels, evenly spread; eta scales the fresh noise of each step,
0 is deterministic, 1 with all K levels is DDPM's ancestral sampling.

B batch, T pred_horizon, T_obs obs_horizon, A action size, C condition width.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vla.policy.heads.head import ActionHead, Draws, Noise, masked_mean_square
from vla.policy.policy_config import DdpmConfig
from vla.policy.training.sampling import RowRandom


class DdpmHead(ActionHead):
    """Objective and sampler around a noise network.

    Args:
        network: called with (x_k, cond, (k + 1) / K), answers with (e,).
        action_dim: A.
        cond_dim: C, the width of the condition it expects.
        config: noise levels, clipping, eta.

    Attributes:
        lowest: [A], of the demonstrations' normalised actions. No number of standard deviations will do
            instead: a gripper that is open in 5 % of the frames is 4.4 of them away from the mean.
        highest: likewise.
    """

    default_num_steps = 10
    alpha_bar: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, network: nn.Module, *, action_dim: int, cond_dim: int, config: DdpmConfig) -> None:
        super().__init__()
        self.network, self.cond_dim, self.config = network, cond_dim, config
        self.register_buffer("alpha_bar", cosine_alpha_bar(config.levels), persistent=False)
        self.register_buffer("lowest", -torch.ones(action_dim))
        self.register_buffer("highest", torch.ones(action_dim))

    def fit_range(self, lowest: Float[Tensor, "A"], highest: Float[Tensor, "A"]) -> None:
        """Take the range of the normalised actions of the demonstrations."""
        self.lowest.copy_(lowest)
        self.highest.copy_(highest)

    def draw(self, rows: int, shape: tuple[int, int], random: RowRandom) -> Draws:
        """Draw noise and uniform noise levels."""
        return {"noise": random.normal(rows, *shape), "level": random.integers(self.config.levels, rows)}

    def compute_loss(
        self,
        cond: Float[Tensor, "B T_obs C"],
        action: Float[Tensor, "B T A"],
        valid: Bool[Tensor, "B T"],
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
    def sample(
        self, cond: Float[Tensor, "B T_obs C"], noise: Noise, num_steps: int
    ) -> Float[Tensor, "B T A"]:
        """Denoise over `num_steps` of the K levels, at most K."""
        steps = min(num_steps, self.config.levels)
        levels = torch.linspace(self.config.levels - 1, 0, steps).round().long().tolist() if steps > 1 else []
        levels = levels or [self.config.levels - 1]
        x_k = noise()
        for level, following in zip(levels, [*levels[1:], None], strict=True):
            index = torch.full((len(x_k),), level, device=x_k.device)
            (e_hat,) = self.network(x_k, cond, self._time(index))
            signal = self.alpha_bar[level]
            target = torch.ones_like(signal) if following is None else self.alpha_bar[following]
            x_k = self._step(x_k, e_hat.float(), signal, target, noise if following is not None else None)
        return x_k

    def _step(
        self, x_k: Tensor, e_hat: Tensor, signal: Tensor, target: Tensor, noise: Noise | None
    ) -> Tensor:
        """Move from one noise level to a lower one (DDIM, equations 12 and 16)."""
        x_0 = (x_k - (1 - signal).sqrt() * e_hat) / signal.sqrt()
        if self.config.clip:
            # At the highest level x_0 is a difference of large numbers; without a bound it runs away.
            x_0 = x_0.clamp(self.config.clip * self.lowest, self.config.clip * self.highest)
            e_hat = (x_k - signal.sqrt() * x_0) / (1 - signal).sqrt()
        sigma = self.config.eta * ((1 - target) / (1 - signal) * (1 - signal / target)).clamp(min=0).sqrt()
        x_next = target.sqrt() * x_0 + (1 - target - sigma**2).clamp(min=0).sqrt() * e_hat
        if self.config.eta and noise is not None:
            x_next = x_next + sigma * noise()
        return x_next

    def _time(self, level: Tensor) -> Tensor:
        return (level + 1) / self.config.levels


def cosine_alpha_bar(
    levels: int, offset: float = 0.008, largest_beta: float = 0.999
) -> Float[Tensor, "levels"]:
    """Return the share of signal at each noise level (improved DDPM, arXiv 2102.09672, equation 17)."""
    time = torch.linspace(0, 1, levels + 1, dtype=torch.float64)
    signal = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
    return (signal[1:] / signal[:-1]).clamp(min=1 - largest_beta).cumprod(0).float()
