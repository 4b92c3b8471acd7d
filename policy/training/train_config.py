"""Configuration of a training run: table `[train]`."""

from typing import Annotated, Literal

from pydantic import Field

from vla.base.compiling import Compile
from vla.base.strict import NotNegative, Positive, Share, StrictModel

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class TrainConfig(StrictModel):
    """The training run."""

    out: str = "runs/train"
    """The run directory."""
    caches: tuple[str, ...] = ()
    """Several feature caches to train on, instead of the one of `[cache]`."""
    weights: tuple[Positive, ...] = ()
    """How often windows of each of `caches` are drawn, in any unit: [2, 1]; empty draws from all alike."""
    rename: dict[str, dict[str, str]] = Field(default_factory=dict)
    """What one of `caches`, by its name, calls streams of the first: {"demos-ab" = {wrist = "hand_cam"}}."""
    normalise: Literal["union", "each"] = "union"
    """Standardise the actions of `caches` by the statistics of all, or by each one's own, for robots that
    differ; `rollout.cache` then says whose actions are wanted."""
    steps: Count = 50_000
    """Updates in all."""
    batch_size: PositiveInt = 256
    """Windows of an update, of all processes together."""
    accumulate: PositiveInt = 1
    """Passes that share the windows of an update, one after the other: the memory of a part of them."""
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
    """Of the matrices of linear maps and convolutions; biases, norms, embeddings and queries do not decay."""
    warmup_steps: Count = 500
    """Steps of the linear rise to `lr`; a cosine follows."""
    min_lr_share: Share = 0.02
    """The cosine ends at this share of `lr`."""
    grad_clip: Positive = 1.0
    """Largest global norm of the gradients."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Ramped up from 0 as min(decay, (1 + step) / (10 + step))."""
    val_episodes: Count = 2
    """Episodes held out of each cache, spread over it; 0 trains on everything."""
    compile: Compile = "off"
    """off, on (torch.compile) or graphs (CUDA graphs too); see `vla.base.compiling`."""
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
