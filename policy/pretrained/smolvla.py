"""SmolVLA trained on the cached output of its own frozen vision tower, as LeRobot trains it on images.

    camera ─> [encoder `smolvla`: vision tower, connector] ─> cache ─┐
    task text ─> [its tokens] ─> cache ──────────────────────────────┴─> language model ─┐
    state ─> standardise ─> state_proj ──────────────────────────────────────────────────┴─> expert ─> chunk

The loss is LeRobot's (0.6.1), of flow matching: x_t = t noise + (1 - t) actions, whose velocity is noise -
actions; t is Beta(1.5, 1), scaled to [0.001, 1]. Every number of an action counts, one that never moves too;
nothing past an episode's end does.

The expert and its projections are trained and saved; so is the state's, unless LeRobot's `train_state_proj`
says no. The language model is frozen: it stays in the folder of `policy.path` and is in no checkpoint.

B batch, T pred_horizon, A action size, M max_action_dim.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from vla.base.errors import ConfigError
from vla.base.strict import Depth
from vla.cache.stream import STATE, TASK, Observation
from vla.policy.agents.chunk_policy import ChunkPolicy, Joint
from vla.policy.agents.policy import Figures
from vla.policy.batch import Batch, Draws
from vla.policy.mixture import AnyMetadata
from vla.policy.nn.normalize import Standardize
from vla.policy.policy_config import PolicyConfig
from vla.policy.pretrained.smolvla_files import EXAMPLE, SmolVLAFiles
from vla.policy.pretrained.smolvla_network import Prefix, SmolVLANetwork, published_weights
from vla.policy.pretrained.smolvla_streams import require_streams
from vla.policy.random import Random, RowRandom
from vla.policy.saved_policy import SavedPolicy

NOISIER = 1.5
"""First parameter of the times' Beta distribution; the second is 1."""
EARLIEST = 0.001


class SmolVLAConfig(PolicyConfig):
    """SmolVLA in LeRobot's format, on a cache of encoder `smolvla`; sees 1 instant, predicts 50 actions."""

    type: Literal["smolvla"] = "smolvla"
    path: str = EXAMPLE
    """The SmolVLA to begin with: a directory with config.json and model.safetensors, or an id on the Hub."""
    revision: str = "main"
    """Branch, tag or commit on the Hub; meaningless for directories."""
    num_steps: Annotated[int, Field(ge=0, le=1024)] = 0
    """Euler steps from noise to actions; 0 takes as many as its config.json says."""
    obs_horizon: Depth = 1
    pred_horizon: Depth = 50
    num_action_steps: Depth = 50

    @model_validator(mode="after")
    def _sees_one_instant(self) -> "SmolVLAConfig":
        if self.obs_horizon != 1:
            raise ValueError(f"obs_horizon is {self.obs_horizon}, it sees one instant; leave it at 1")
        return self

    @property
    def takes_task(self) -> bool:
        return True

    def build(self, saved: SavedPolicy) -> "SmolVLA":
        return SmolVLA(saved, self)


class SmolVLA(ChunkPolicy):
    """SmolVLA after its vision tower.

    Args:
        saved: all that is known of it.
        policy: its settings.

    Attributes:
        files: what it begins with.
        network: language model, action expert and projections.
        tokens: [num_tasks, tokenizer_max_length] numbers of the task texts' tokens, -1 past their ends.
        camera_names: cameras that it looks through, in order.

    Raises:
        ConfigError: its files are not there, or its streams were not made by encoder `smolvla` of the same.
    """

    tokens: Tensor
    grad_clip = 10.0
    export_problem = "SmolVLA is for LeRobot: vla export RUN --lerobot DIR"
    join_problem = "SmolVLA's sampler joins no actions under way; take rollout.execution = chunk"

    def __init__(self, saved: SavedPolicy, policy: SmolVLAConfig) -> None:
        super().__init__(saved)
        self.files = files = SmolVLAFiles.open(policy.path, policy.revision)
        settings = files.settings
        if Path(policy.path).is_dir():
            self.share_problem = (
                f"its language model stays in {policy.path}; make a folder that holds everything: "
                "vla export RUN --lerobot DIR"
            )
        self.default_num_steps = policy.num_steps or settings.num_steps
        self.camera_names = tuple(stream.name for stream in saved.streams if stream.name != STATE)
        weights = torch.get_default_device().type != "meta"  # there shapes are asked for, nothing else
        with torch.device("meta"):
            self.network = SmolVLANetwork(files)
        require_streams(saved, files, self.network.width, look_at_weights=weights)
        if weights:
            self.network.load_state_dict(published_weights(self.network, files), assign=True)
        assert saved.state is not None  # require_streams sees to it
        self.state_standardize = Standardize(saved.state.channels)
        self.register_buffer("tokens", torch.full((len(saved.tasks), settings.tokenizer_max_length), -1.0))
        self._noise_shape, self._longest = (policy.pred_horizon, settings.max_action_dim), 1

    def fit(self, cache: AnyMetadata, texts: Float[Tensor, "num_tasks text_dim"] | None) -> None:
        """Take the statistics of the state, and the tokens of the task texts."""
        assert texts is not None  # it takes the task
        self.state_standardize.fit_as(cache.statistics[STATE], self.config.policy.normalization)
        vocabulary = self.network.language.embed_tokens.num_embeddings
        if not (texts == texts.round()).all() or not (-1 <= texts.min() <= texts.max() < vocabulary):
            raise ConfigError(
                f"the cache holds no tokens of its task texts as {self.files.name} cuts them; make it with "
                f"vla embed --encoder {self.files.name} --language"
            )
        self.tokens.copy_(texts)
        self._longest = longest(self.tokens)

    def load_saved(self, tensors: dict[str, Tensor]) -> None:
        super().load_saved(tensors)
        self._longest = longest(self.tokens)

    @property
    def task_features(self) -> Float[Tensor, "num_tasks text_dim"]:
        return self.tokens

    def is_saved(self, name: str) -> bool:
        return not name.startswith("network.language.")

    def describe(self) -> dict[str, Any]:
        """Say what it began with, and how much of it is trained."""
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return {"smolvla": self.files.name, "trained_parameters": trained}

    def draw(self, batch: Batch, random: Random) -> Draws:
        """Draw the noise, of all numbers that an action may have, and the times."""
        rows = len(batch.action)
        # A number below x has probability x^1.5: the inverse of that makes uniform numbers Beta(1.5, 1).
        time = random.uniform(rows) ** (1 / NOISIER) * (1 - EARLIEST) + EARLIEST
        return {"noise": random.normal(rows, *self._noise_shape), "time": time}

    def loss(self, batch: Batch, draws: Draws) -> tuple[Float[Tensor, ""], Figures]:
        """Return the mean square error of the velocity, of the robot's numbers that are no padding."""
        noise, time = draws["noise"], draws["time"][:, None, None]
        actions = self.as_learned(batch.action, batch.observation[STATE])
        size = actions.shape[-1]
        actions = functional.pad(actions, (0, noise.shape[-1] - size))
        x_t = time * noise + (1 - time) * actions
        prefix = self._prefix(batch.observation, self._longest)  # a number of the host's: no wait for a GPU
        velocity = self.network.velocity(x_t, draws["time"], prefix)
        error = (velocity.float() - (noise - actions)).square()[..., :size]
        counts = ~batch.action_is_pad[..., None]
        return (error * counts).sum() / (counts.sum() * size).clamp(min=1), {}

    def _prefix(self, observation: Observation, num_words: int) -> Prefix:
        """Let the language model read an observation of one instant.

        Args:
            observation: see `Policy.act`.
            num_words: tokens of the longest text; padding beyond it would only cost time.
        """
        images = torch.cat([observation[name][:, -1].float() for name in self.camera_names], dim=1)
        state = self.state_standardize(observation[STATE][:, -1].float())
        state = functional.pad(state, (0, self.files.settings.max_state_dim - state.shape[-1]))
        words = observation[TASK][:, -1].long()
        return self.network.read(images, words[:, :num_words], state)

    @torch.no_grad()
    def samples(
        self,
        observation: Observation,
        random: Random | None,
        num_steps: int,
        *,
        count: int = 1,
        joint: Joint | None = None,
    ) -> Float[Tensor, "N B T A"]:
        """Draw chunks of one observation, which is read once; see `ChunkPolicy.samples`.

        Raises:
            ConfigError: they shall join others, or the task text's tokens are missing.
        """
        if joint is not None:
            raise ConfigError(self.join_problem)
        if TASK not in observation:
            raise ConfigError(f"SmolVLA needs `{TASK}`, the tokens of the task text")
        source, state = random or RowRandom(device=self.device), observation[STATE]
        prefix = self._prefix(observation, longest(observation[TASK]))
        steps = num_steps or self.default_num_steps
        chunks = []
        for _ in range(count):
            noise = source.normal(len(state), *self._noise_shape)
            chunk = self.network.sample(noise, prefix, steps)[..., : self.action_form.dim]
            chunks.append(self.in_robot_units(chunk.float(), state))
        return torch.stack(chunks)

    def typical(self, stream: str, normal: Tensor) -> Tensor:
        """Return numbers in the robot's units, for the state; see `Policy.typical`."""
        return self.state_standardize.invert(normal) if stream == STATE else normal


def longest(words: Float[Tensor, "*batch length"]) -> int:
    """Return how many tokens the longest text has; a text that is -1 throughout counts as one."""
    return max(1, int((words >= 0).sum(dim=-1).max()))
