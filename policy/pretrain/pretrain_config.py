"""Configuration of `vla pretrain`: table `[pretrain]`. The defaults are LeWorldModel's (arXiv 2603.19312).

Its paper trains for 10 epochs on tens of thousands of episodes. On some hundred episodes that is far too
little; the public multi-view runs had 100 epochs, 47,800 steps of 128 clips.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vla.base.lewm import HEAD_DIM, Layout, VisionSizes
from vla.base.strict import Depth, NotNegative, Positive, StrictModel, Width
from vla.policy.training.train_config import Count, PositiveInt, TrainConfig


class PretrainConfig(StrictModel):
    """A world model that is trained on cached frames, for its encoder."""

    out: str = "runs/lewm"
    """The run directory, which `vla embed --encoder` takes afterwards."""
    cameras: tuple[str, ...] = ()
    """Whose views are fused, in this order; none named takes those of the cache in its own."""
    layout: Layout = "row"
    """How views are fused: left to right, top to bottom (column), or two a row (grid)."""
    image_size: Width = 224
    """Shorter side [pixel] of the fused image that the ViT sees; more patches take more time."""
    patch: Width = 14
    """Side of a patch [pixel]."""
    width: Width = 192
    """Of the ViT; it has a head for every 64."""
    depth: Depth = 12
    """Blocks of the ViT."""
    dim: Width = 192
    """Numbers of a feature."""
    predictor_depth: Depth = 6
    """Blocks of the predictor."""
    predictor_heads: Depth = 16
    """Attention heads of the predictor, of 64 numbers each."""
    predictor_mlp: Width = 2048
    """Width of its MLPs."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """In the predictor; without it, the paper's success on Push-T falls from 96 to 78 %."""
    history: Depth = 3
    """Instants that the next one is predicted from."""
    frameskip: Depth = 5
    """Frames from one instant to the next; the actions between are one input."""
    sigreg: NotNegative = 0.09
    """Weight of SIGReg, which keeps features from collapsing; the paper's success is flat from .01 to .2."""
    projections: PositiveInt = 1024
    """Random directions of SIGReg, drawn anew at each step."""
    steps: PositiveInt = 20_000
    """Updates in all."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Clips of an update; SIGReg looks at their spread, so they cannot be accumulated."""
    lr: Positive = 5e-5
    """Peak learning rate of AdamW; a linear rise of 1 % of the steps, then a cosine to 0."""
    weight_decay: NotNegative = 1e-3
    """Of the matrices of linear maps and convolutions."""
    grad_clip: Positive = 1.0
    """Largest global norm of the gradients."""
    seed: Count = 0
    """Of weights, order, dropout and directions."""
    device: str = "auto"
    """auto, cuda, cuda:1, mps, cpu."""
    tracker: Literal["tensorboard", "wandb", "swanlab", "trackio", "none"] = "tensorboard"
    """Where figures go beside `metrics.jsonl`."""
    val_episodes: Count = 2
    """Episodes held out, spread over the cache."""
    log_every: PositiveInt = 50
    """Steps between lines of figures."""
    val_every: PositiveInt = 1000
    """Steps between figures of the held-out episodes."""
    save_every: PositiveInt = 1000
    """Steps between checkpoints; the last two are kept."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> "PretrainConfig":
        if self.width % HEAD_DIM:
            raise ValueError(f"width {self.width} is no multiple of {HEAD_DIM}, the size of a head")
        if self.image_size % self.patch:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch {self.patch}")
        return self

    @property
    def vision(self) -> VisionSizes:
        """Sizes of the encoder; the MLPs are four times as wide as the ViT."""
        return VisionSizes(
            width=self.width,
            depth=self.depth,
            mlp=4 * self.width,
            patch=self.patch,
            grid=self.image_size // self.patch,
            dim=self.dim,
        )

    @property
    def instants(self) -> range:
        """Frames of a clip, relative to its first."""
        return range(0, self.frameskip * self.history + 1, self.frameskip)

    @property
    def schedule(self) -> TrainConfig:
        """What optimiser and learning rate ask for."""
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            betas=(0.9, 0.999),
            weight_decay=self.weight_decay,
            warmup_steps=-(-self.steps // 100),
            min_lr_share=0.0,
        )
