"""Configuration of the agent: table `[policy]`.

The defaults are the full-size experiment: 3 views x 192, condition 384, a 12-layer head of width 384,
2 observations, 16 predicted and 8 executed actions.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vla.base.strict import Depth, StrictModel, Width

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class ImfConfig(StrictModel):
    """The improved-MeanFlow objective (arXiv 2512.02012); measurements in docs/log.md."""

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
    loss_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    """p of the weight 1 / (loss + c)^p; 0 is faithful to the mixture, 1 seeks modes."""
    loss_offset: Positive = 1e-3
    """c of the same weight."""
    derivative: Literal["jvp", "finite_difference"] = "jvp"
    """du/dt by forward-mode differentiation, or by central differences: the same gradient to 6e-5, and
    on a CPU 0.69 of the time."""


class DdpmConfig(StrictModel):
    """Noise prediction, sampled with DDIM."""

    levels: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Noise levels of training, K."""
    clip: NotNegative = 1.0
    """Bound of a denoised action, as a multiple of the demonstrations' range about their mean; 0 is none."""
    eta: Share = 0.0
    """Fresh noise of each sampling step; 0 is deterministic, 1 is DDPM's."""


class MlpConfig(StrictModel):
    """Deterministic regression."""

    width: Width = 1024
    """Of the hidden layers."""
    layers: Depth = 3
    """Hidden layers."""


class PolicyConfig(StrictModel):
    """The agent: projectors, condition, action head."""

    per_view_dim: Width = 192
    """Width that each view's feature is projected to."""
    language: bool = False
    """Take the task text as a condition too; the cache must hold its features: vla embed --language."""
    language_dim: Width = 64
    """Width that the task text's feature is projected to."""
    cond_dim: Width = 384
    """Width of the condition of one observation step, `head.cond_dim`."""
    obs_horizon: Depth = 2
    """Observations that the policy sees, the newest one included."""
    pred_horizon: Depth = 16
    """Predicted actions, from the first of these observations on."""
    num_action_steps: Depth = 8
    """Actions executed of each predicted chunk, from the current observation on."""
    head: Literal["imf", "flow", "ddpm", "mlp"] = "imf"
    """Improved MeanFlow, flow matching, noise prediction, or regression."""
    residual: Literal["attnres", "plain"] = "attnres"
    """Attention Residuals (arXiv 2603.15031), or the ordinary residual stream."""
    n_emb: Width = 384
    """Width of the head's transformer."""
    n_layer: Depth = 12
    """Its blocks, an attention and an MLP each."""
    n_head: Depth = 8
    """Its attention heads."""
    imf: ImfConfig = ImfConfig()
    ddpm: DdpmConfig = DdpmConfig()
    mlp: MlpConfig = MlpConfig()

    @model_validator(mode="after")
    def _shapes_fit(self) -> "PolicyConfig":
        if self.n_emb % (2 * self.n_head):
            raise ValueError(f"n_emb {self.n_emb} must be a multiple of 2 * n_head = {2 * self.n_head}")
        if self.num_action_steps > self.pred_horizon - self.obs_horizon + 1:
            raise ValueError(
                f"num_action_steps {self.num_action_steps} must be at most pred_horizon - obs_horizon + 1 "
                f"= {self.pred_horizon - self.obs_horizon + 1}"
            )
        return self
