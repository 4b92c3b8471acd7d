"""Configuration of stage two: tables `[policy]` and `[train]`.

The defaults are the full-size experiment: 3 views x 192, condition 384, a 12-layer head of width 384,
2 observations, 16 predicted and 8 executed actions, 50,000 steps.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vla.compiling import Compile
from vla.strict import Depth, StrictModel, Width

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
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


class TrainConfig(StrictModel):
    """The training run."""

    out: str = "runs/train"
    """The run directory."""
    steps: Count = 50_000
    """Updates in all."""
    batch_size: PositiveInt = 256
    """Windows of an update, of all processes together."""
    seed: Count = 0
    """Of weights, order, noise and times."""
    device: str = "auto"
    """auto, cuda, cuda:1, mps, cpu."""
    tracker: Literal["tensorboard", "wandb", "swanlab", "trackio", "none"] = "tensorboard"
    """Where figures go beside `metrics.jsonl`; all but tensorboard are extras: pip install 'vla[wandb]'."""
    lr: Positive = 3e-4
    """Peak learning rate of AdamW."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's decay of its two averages."""
    weight_decay: NotNegative = 1e-4
    """Of matrices; biases, gains and depth queries do not decay."""
    warmup_steps: Count = 500
    """Steps of the linear rise to `lr`; a cosine follows."""
    min_lr_share: Share = 0.02
    """The cosine ends at this share of `lr`."""
    grad_clip: Positive = 1.0
    """Largest global norm of the gradients."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Ramped up from 0 as min(decay, (1 + step) / (10 + step))."""
    val_episodes: Count = 2
    """Episodes held out, spread over the dataset; 0 trains on everything."""
    compile: Compile = "off"
    """off, on (torch.compile) or graphs (CUDA graphs too); see `vla.compiling`."""
    matmul_precision: Literal["highest", "high"] = "highest"
    """Of float32 products on a GPU, those of the derivative; high is TF32: 10 bits instead of 23."""
    max_cache_gib: NotNegative = 0.0
    """Caches larger than this stay memory-mapped on disk; 0 lets the available memory decide."""
    log_every: PositiveInt = 50
    """Steps between lines of figures."""
    val_every: PositiveInt = 1000
    """Steps between losses on the held-out episodes."""
    save_every: PositiveInt = 10_000
    """Steps between checkpoints."""
    rollout_every: Count = 10_000
    """Steps between validation rollouts; 0 is none."""
    rollout_episodes: PositiveInt = 10
    """Episodes of each validation rollout."""
