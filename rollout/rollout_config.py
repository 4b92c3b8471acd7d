"""Configuration of the simulation: tables `[env]`, `[record]`, `[rollout]` and `[serve]`.

Recording and rolling out share `[env]`, so that a policy never meets another camera than the one
its demonstrations were seen through.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from vla.base.compiling import AutoCompile
from vla.base.strict import NotNegative, StrictModel
from vla.rollout.execution.execution import EXECUTIONS, ExecutionConfig

PositiveInt = Annotated[int, Field(ge=1)]


class EnvConfig(StrictModel):
    """Which environment, and how it is built."""

    id: str = "vla/SimTransfer-v0"
    """Any registered Gymnasium id; `module:id` imports the module first, as does the part before a slash."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to `gymnasium.make`, for example `{ render_height = 256, render_width = 256 }`."""
    cameras: dict[str, str] = Field(default_factory=dict)
    """The policy's name of a camera -> the environment's; empty takes all of them under their own names."""
    clip_actions: bool = True
    """Keep actions within the environment's action space; false where it declares a wrong one."""


class RecordConfig(StrictModel):
    """`vla record`: expert demonstrations."""

    task: str = "sim_transfer"
    """A task with an expert: sim_transfer, detour, instructions, aloha_transfer_cube, metaworld/reach."""
    episodes: PositiveInt = 50
    """Episodes of the dataset, those included that `append` finds there."""
    append: bool = False
    """Continue the dataset at `out`, if there is one, to the bytes that one recorded at once has."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Attempt k is reset with seed + k; failures are left out, so episodes may skip seeds."""
    out: str = "data/sim_transfer"
    """Folder of the dataset."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes; 0 is one per core."""
    image_size: tuple[PositiveInt, PositiveInt] = (256, 256)
    """Height and width [pixel] of the stored frames."""
    keep_failures: bool = False
    """Store failed episodes too."""
    noise: Annotated[float, Field(ge=0)] = 1.0
    """Scale of the variation: speed, and smooth disturbances of what is executed; 0 is none."""


class RolloutConfig(StrictModel):
    """`vla rollout`, and the validation rollouts of `vla train`."""

    episodes: PositiveInt = 50
    """Episodes of the evaluation."""
    seed: Annotated[int, Field(ge=0)] = 1000
    """Episode k is reset with seed + k. Validation rollouts, which choose the best checkpoint, take seed +
    1,000,000 + k, so that what is chosen is not measured on what it was chosen by."""
    num_envs: Annotated[int, Field(ge=0)] = 0
    """Environments side by side, one process each; 0 is one per core."""
    num_steps: Annotated[int, Field(ge=0)] = 0
    """Sampling steps of the action head; 0 takes the head's own: 1 for imf and mlp, 10 for flow and ddpm."""
    temperature: NotNegative | None = None
    """Of heads that draw tokens, autoregressive and fast: 0 takes the likeliest; empty is the head's own."""
    task: str = ""
    """What to do, in words, for a policy with language; empty takes the only text it was trained on."""
    cache: str = ""
    """Whose actions a policy of several caches answers with, after train.normalise = each: a cache's name."""
    compile: AutoCompile = "auto"
    """Of the action head: off, on (torch.compile), graphs (CUDA graphs too), or auto: graphs where `vla
    serve` has a GPU, else off, because the decisions of a rollout are too few; see `vla.base.compiling`."""
    execution: Annotated[ExecutionConfig, EXECUTIONS.choice()] = EXECUTIONS.by_default()
    """What is executed of the chunks that the policy predicts: one after the other (chunk), or joined."""
    weights: Literal["ema", "raw"] = "ema"
    """The moving average of the weights, or the last ones."""
    videos: Annotated[int, Field(ge=0)] = 4
    """Episodes recorded as mp4, the first ones."""


class ServeConfig(StrictModel):
    """`vla serve`: the policy behind a socket. There is no password: whoever reaches it may ask it."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only, `0.0.0.0` from everywhere."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes a free one."""
    protocol: Literal["vla", "vla-eval"] = "vla"
    """vla is that of `vla.client`; vla-eval that of the harness of this name, which also looks at
    `env.cameras` and `rollout.seed`, and at none of the limits below."""
    max_clients: PositiveInt = 8
    """Connections at a time; further ones are told to come back."""
    max_message_mib: Annotated[float, Field(gt=0, le=1024)] = 32.0
    """Larger messages are refused unread; three views of 1080p are 18 MiB."""
    timeout_s: Annotated[float, Field(gt=0)] = 20.0
    """For a client to shake hands, to answer a ping, to take a reply [s]; later it is dropped."""
