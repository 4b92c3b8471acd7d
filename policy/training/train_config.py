"""Configuration of a training run: table `[train]`."""

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vla.base.compiling import AutoCompile
from vla.base.strict import NotNegative, Positive, Share, StrictModel
from vla.policy.training.augment import TrainAugment

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


Best = Literal["auto", "reward", "val_loss", "action_error"]


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
    adapt_steps: Count = 5_000
    """Updates of the end-to-end training on images in `vla adapt`, before the trunk is frozen."""
    extended: tuple[PositiveInt, ...] = ()
    """Earlier values of `steps`, in order, at which the learning rate rises again; `--extend` writes it."""
    batch_size: PositiveInt = 256
    """Windows of an update, of all processes together."""
    accumulate: PositiveInt = 1
    """Passes that share the windows of an update, one after the other: the memory of a part of them."""
    gradient_checkpointing: bool = False
    """Compute activations of trunks, attention and MLPs again for the gradient instead of keeping them: the
    same losses in less memory, for one forward pass more."""
    autocast: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of large products: auto is bfloat16 on a GPU, else float32; bfloat16 also on a CPU that has it."""
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
    grad_clip: NotNegative = 0.0
    """Largest global norm of the gradients; 0 takes the head's own: 5 for imf, 1 for the others."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Ramped up from 0 as min(decay, (1 + step) / (10 + step))."""
    val_episodes: Count = 2
    """Episodes held out of each cache, spread over it; 0 trains on everything."""
    augment: TrainAugment = TrainAugment()
    past_end: Literal["mask", "hold"] = "mask"
    """Actions past a demonstration's end: not learned, or learned as its last action held. Do not hold
    actions that are differences."""
    best: Best = "auto"
    """What makes a checkpoint `best`: `avg_reward` of validation rollouts, held-out loss, or held-out action
    error; auto is reward where there are rollouts, else val_loss."""
    patience: Count = 0
    """Measurements in a row without a better `best` after which training ends; 0 is never."""
    compile: AutoCompile = "auto"
    """off, on (torch.compile), graphs (CUDA graphs too), or auto: graphs on a GPU from 5,000 steps on, else
    off; see `vla.base.compiling`."""
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

    @model_validator(mode="after")
    def _extensions_are_in_order(self) -> "TrainConfig":
        ends = (*self.extended, self.steps)
        if self.extended and any(later <= end for end, later in itertools.pairwise(ends)):
            raise ValueError(f"extended and steps must rise: {', '.join(map(str, ends))}")
        return self
