"""Improved MeanFlow (arXiv 2512.02012) on action chunks: learn average velocities, sample in one step.

Convention: t = 0 is data, t = 1 is noise, 0 <= r <= t <= 1, h = t - r.

    x_t = (1 - t) x + t e              v = e - x                     e ~ N(0, I)
    u(x_t, r, t)                       average velocity over [r, t];  u(x_t, t, t) = v
    V = u + h * stopgrad(du/dt)        du/dt along the flow, with r held fixed
    loss = w(|V - v|^2) + w(|v_hat - v|^2),    w(l) = l / stopgrad(l + c)^p
    one step:  a = e - u(e, r=0, t=1)

v_hat is the network's auxiliary output. The tangent of the derivative is the network's own velocity
(v_hat at h = 0), not e - x: the sampling noise of e - x would enter the target.

B batch, T pred_horizon, N condition tokens, A action size, C condition width.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.base.strict import Positive, Share
from vla.policy.batch import Draws
from vla.policy.heads.head import ActionHead, HeadConfig, Valid, masked_mean_square
from vla.policy.heads.joining import Target, sample_joined
from vla.policy.nn.action_transformer import ActionTransformer
from vla.policy.nn.dual import Dual
from vla.policy.nn.precision import in_full_precision, products_are_rounded
from vla.policy.policy_config import HeadedConfig
from vla.policy.random import Random

FINITE_DIFFERENCE_STEP = 5e-3

Velocity = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(x_t [B, T, A], t [B], h [B]) -> (u, v), the condition already inside; tensors, or duals of them."""


class ImfConfig(HeadConfig):
    """The improved-MeanFlow objective (arXiv 2512.02012); measurements in docs/log.md."""

    type: Literal["imf"] = "imf"
    flow_share: Share = 0.5
    """Rows of a batch with r = t, which is plain flow matching."""
    uniform_share: Share = 0.5
    """Rows whose (t, r) are uniform; the others are logit-normal."""
    pinned_share: Share = 0.1
    """Of the rows with r < t, those pinned to (t, r) = (1, 0), the only query of one-step sampling."""
    logit_mean: float = -0.4
    """Mean of the logit-normal times, of the paper."""
    logit_std: Positive = 1.0
    """Its standard deviation."""
    loss_power: Share = 0.5
    """p of the weight 1 / (loss + c)^p; 0 is faithful to the mixture, 1 seeks modes."""
    loss_offset: Positive = 1e-3
    """c of the same weight."""
    derivative: Literal["jvp", "finite_difference"] = "jvp"
    """du/dt by forward-mode differentiation with dual numbers, or by central differences: the same
    gradient to 6e-5, and on a CPU 0.9 of the time."""

    def build(self, policy: HeadedConfig, action_dim: int, cond_tokens: int) -> "ImfHead":
        network = ActionTransformer(policy, action_dim, cond_tokens, num_times=2, num_outputs=2)
        shape = (policy.pred_horizon, action_dim)
        return ImfHead(network, cond_dim=policy.cond_dim, shape=shape, config=self)


class ImfHead(ActionHead):
    """Objective and sampler around a velocity network.

    Args:
        network: called with (x_t, cond, t, h), answers with (u, v).
        cond_dim: C, the width of the condition it expects.
        shape: (T, A), of a chunk.
        config: time sampling, weighting, derivative.
    """

    default_num_steps = 1
    join_problem = ""
    grad_clip = 5.0

    def __init__(
        self, network: nn.Module, *, cond_dim: int, shape: tuple[int, int], config: ImfConfig
    ) -> None:
        super().__init__(cond_dim, shape)
        self.network, self.config = network, config

    def draw(self, rows: int, random: Random) -> Draws:
        """Draw noise and the times t and r."""
        noise = random.normal(rows, *self.shape)
        t, r = sample_times(rows, self.config, random)
        return {"noise": noise, "t": t, "r": r}

    def compute_loss(
        self,
        cond: Float[Tensor, "B N C"],
        action: Float[Tensor, "B T A"],
        valid: Valid,
        draws: Draws,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the loss and its parts; see `ActionHead.compute_loss`."""
        noise, t, r = draws["noise"], draws["t"], draws["r"]
        h = t - r
        x_t = torch.lerp(action, noise, t[:, None, None])
        velocity = noise - action
        u, v_hat = self.network(x_t, cond, t, h)
        # Rows with r = t come first and need no derivative: h = 0 there.
        first = fewest_flow_rows(len(action), self.config)
        du_dt = torch.zeros_like(velocity)
        if first < len(action):
            du_dt[first:] = self._du_dt(x_t[first:], t[first:], r[first:], cond[first:])
        compound = u.float() + h[:, None, None] * du_dt
        u_error = masked_mean_square(compound - velocity, valid)
        v_error = masked_mean_square(v_hat.float() - velocity, valid)
        loss = self._weigh(u_error).mean() + self._weigh(v_error).mean()
        parts = {
            "flow_mse": u_error[:first].mean() if first else loss.new_zeros(()),
            "meanflow_mse": u_error[first:].mean() if first < len(action) else loss.new_zeros(()),
            "v_mse": v_error.mean(),
            "du_dt_rms": du_dt.square().mean().sqrt(),
        }
        return loss, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def sample(self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int) -> Float[Tensor, "B T A"]:
        """Follow average velocities from t = 1 to 0, on a uniform grid."""
        x_t = self.noise(cond, random)
        h = x_t.new_full((x_t.shape[0],), 1 / num_steps)
        for step in range(num_steps):
            t = torch.full_like(h, 1 - step / num_steps)
            u, _ = self.network(x_t, cond, t, h)
            x_t = x_t - u / num_steps
        return x_t

    def sample_joined(
        self, cond: Float[Tensor, "B N C"], random: Random, num_steps: int, target: Target
    ) -> Float[Tensor, "B T A"]:
        """Follow guided average velocities likewise."""

        def velocity(x_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
            u: Tensor = self.network(x_t, cond, t, h)[0]
            return u

        return sample_joined(velocity, self.noise(cond, random), num_steps, target)

    def _weigh(self, error: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        return error / (error.detach() + self.config.loss_offset) ** self.config.loss_power

    @torch.no_grad()
    def _du_dt(
        self,
        x_t: Float[Tensor, "b T A"],
        t: Float[Tensor, "b"],
        r: Float[Tensor, "b"],
        cond: Float[Tensor, "b T_obs C"],
    ) -> Float[Tensor, "b T A"]:
        """Differentiate u along the flow in float32: bfloat16 is off by 4 to 6 %.

        TF32 is off by 0.6 %, but of a difference by 17 %: nearly equal velocities are subtracted.
        """
        if self.config.derivative == "finite_difference" and products_are_rounded():
            return in_full_precision(self._differentiate, x_t, t, r, cond)
        return self._differentiate(x_t, t, r, cond)

    def _differentiate(self, x_t: Tensor, t: Tensor, r: Tensor, cond: Tensor) -> Tensor:
        with torch.autocast(x_t.device.type, enabled=False):
            cond = cond.float()

            def velocities(x: Any, time: Any, length: Any) -> tuple[Any, Any]:
                return self.network(x, cond, time, length)

            return total_derivative(velocities, x_t, t, r, self.config.derivative)


def total_derivative(
    velocities: Velocity,
    x_t: Float[Tensor, "B T A"],
    t: Float[Tensor, "B"],
    r: Float[Tensor, "B"],
    method: str = "jvp",
) -> Float[Tensor, "B T A"]:
    """Return du/dt along the flow with r held fixed: (du/dx) v + du/dt.

    The network takes h = t - r; because r is captured, h moves with t by itself. Forgetting that, that is
    tangents (v, 1, 0) instead of (v, 1, 1), is off by 0.33 on the analytic Gaussian.

    Args:
        velocities: the network; u is differentiated, v at h = 0 is the tangent.
        x_t: noisy actions.
        t: times.
        r: interval starts.
        method: "jvp" by dual numbers, or "finite_difference" (central), for networks without rules for them.
    """
    _, tangent = velocities(x_t, t, torch.zeros_like(t))
    if method == "jvp":
        one = torch.ones_like(t)
        u, _ = velocities(Dual.of(x_t, tangent), Dual.of(t, one), Dual.of(t - r, one))
        return u.tangent
    step = FINITE_DIFFERENCE_STEP

    def u_at(distance: float) -> Tensor:
        return velocities(x_t + distance * tangent, t + distance, t + distance - r)[0]

    return (u_at(step) - u_at(-step)) / (2 * step)


def num_flow_rows(batch: int, config: ImfConfig) -> int:
    """Return how many rows of a whole batch, the first ones, have r = t; fixed, to keep shapes static."""
    return round(batch * config.flow_share)


def fewest_flow_rows(rows: int, config: ImfConfig) -> int:
    """Return how many first rows have r = t in every n-th row of a batch, whatever n and where one begins.

    Parts of a batch may differ by one such row; where one has more, its derivative is computed and counts 0.

    Args:
        rows: of the part, a process's or a pass's.
        config: the share.
    """
    # In whole numbers, which torch.compile follows; 0.29 * 100 is less than 29.
    return rows * round(config.flow_share * 10**6) // 10**6


def sample_times(
    rows: int, config: ImfConfig, random: Random
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Draw (t, r) with 0 <= r <= t <= 1.

    The paper's logit-normal alone hardly ever draws t near 1: P(t > 0.95) = 4e-4, yet one-step sampling
    asks exactly for (1, 0). Half uniform with a tenth of the rows pinned there brought the toy's energy
    distance from 44.6 to 4.1.
    """
    times = torch.sigmoid(config.logit_mean + config.logit_std * random.normal(rows, 2))
    times = torch.where(random.uniform(rows, 1) < config.uniform_share, random.uniform(rows, 2), times)
    t, r = times.amax(dim=1), times.amin(dim=1)
    index, whole = random.places(rows)
    flow = index.to(t.device) < num_flow_rows(whole, config)
    pinned = (random.uniform(rows) < config.pinned_share) & ~flow
    t, r = t.masked_fill(pinned, 1.0), r.masked_fill(pinned, 0.0)
    return t, torch.where(flow, t, r)
