"""The agent: frozen features and robot state in, action chunks out. It never sees an image.

    features ─> per-view projectors ─┐
                                     ├─ concat ─> cond_projector ─> [B, T_obs, cond_dim] ─> action head
    state ────> standardise ─────────┘

The projector of the condition lives here, in `_build_cond`: encoders own visual features only,
the agent owns the contract that the head expects (`head.cond_dim`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vla.cache.metadata import CacheMetadata, DatasetIdentity, EncoderIdentity, Preprocessing
from vla.errors import CheckpointError
from vla.files import write_atomically, write_json
from vla.policy.batch import Batch
from vla.policy.config import PolicyConfig
from vla.policy.heads import build_head
from vla.policy.heads.head import Draws, Noise
from vla.policy.normalize import Standardize
from vla.policy.projector import ViewProjector
from vla.policy.sampling import RowRandom
from vla.strict import StrictModel, explain

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


class TrainingData(StrictModel):
    """The demonstrations that a policy learned from."""

    dataset: DatasetIdentity
    num_episodes: int
    num_frames: int
    tasks: tuple[str, ...]
    """Different task texts, in order of appearance."""


class AgentConfig(StrictModel):
    """What a policy is: `config.json` beside its weights."""

    policy: PolicyConfig
    camera_names: tuple[str, ...]
    state_dim: Annotated[int, Field(ge=1)]
    action_dim: Annotated[int, Field(ge=1)]
    fps: Annotated[float, Field(gt=0)]
    """Control rate of the demonstrations [Hz]."""
    encoder: EncoderIdentity
    """Features of another encoder are refused."""
    preprocessing: Preprocessing
    cache_fingerprint: str
    """The cache that the policy was trained on."""
    data: TrainingData | None = None
    """What the cache was made of."""


class VLAAgent(nn.Module):
    """Projectors, condition and action head, with the normalisation statistics inside.

    A new agent has the identity for normalisation; `for_cache` makes one that is ready to train.

    Attributes:
        camera_names: views in concatenation order.
        raw_per_step_cond_dim: projected views and state of one step, before the condition projector.
        per_step_cond_dim: after it; equals `head.cond_dim`.
        global_cond_dim: of all observation steps together.
    """

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        policy = config.policy
        self.config = config
        self.camera_names = config.camera_names
        encoder = config.encoder
        self.projector = ViewProjector(
            config.camera_names, encoder.feature_dim, encoder.tokens, policy.per_view_dim
        )
        self.state_standardize = Standardize(config.state_dim)
        self.action_standardize = Standardize(config.action_dim)
        self.raw_per_step_cond_dim = self.projector.output_dim + config.state_dim
        self.per_step_cond_dim = policy.cond_dim
        self.global_cond_dim = policy.cond_dim * policy.obs_horizon
        self.cond_projector = nn.Linear(self.raw_per_step_cond_dim, self.per_step_cond_dim)
        self.head = build_head(policy, config.action_dim)

    @classmethod
    def for_cache(cls, policy: PolicyConfig, cache: CacheMetadata) -> "VLAAgent":
        """Build an untrained agent that fits a cache and standardises with its statistics."""
        agent = cls(
            AgentConfig(
                policy=policy,
                camera_names=cache.camera_names,
                state_dim=cache.state_dim,
                action_dim=cache.action_dim,
                fps=cache.dataset.fps,
                encoder=cache.encoder,
                preprocessing=cache.preprocessing,
                cache_fingerprint=cache.fingerprint,
                data=TrainingData(
                    dataset=cache.dataset,
                    num_episodes=len(cache.episodes),
                    num_frames=cache.num_frames,
                    tasks=tuple(dict.fromkeys(episode.task for episode in cache.episodes)),
                ),
            )
        )
        agent.state_standardize.fit(cache.state_statistics.mean, cache.state_statistics.std)
        agent.action_standardize.fit(cache.action_statistics.mean, cache.action_statistics.std)
        agent.projector.fit(cache.feature_statistics)
        return agent

    @property
    def num_cameras(self) -> int:
        return len(self.camera_names)

    @property
    def device(self) -> torch.device:
        return self.cond_projector.weight.device

    def _build_cond(
        self,
        features: Mapping[str, Float[Tensor, "B T_obs tokens dim"]],
        state: Float[Tensor, "B T_obs S"],
    ) -> Float[Tensor, "B T_obs C"]:
        """Build the condition of each observation step, [B, T_obs, per_step_cond_dim]."""
        raw = torch.cat([self.projector(features), self.state_standardize(state)], dim=-1)
        return self.cond_projector(raw)

    def draw(self, batch: Batch, random: RowRandom) -> Draws:
        """Draw the noise and times of one batch's loss."""
        rows, *shape = batch.action.shape
        return self.head.draw(rows, (shape[0], shape[1]), random)

    def compute_loss(
        self, batch: Batch, draws: Draws | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the head's loss on a batch, and figures worth logging.

        Args:
            batch: windows.
            draws: from `draw`; None draws from torch's default generator.
        """
        if draws is None:
            draws = {key: value.to(self.device) for key, value in self.draw(batch, RowRandom()).items()}
        cond = self._build_cond(batch.features, batch.state)
        action = self.action_standardize(batch.action)
        return self.head.compute_loss(cond, action, ~batch.action_is_pad, draws)

    def forward(self, batch: Batch, draws: Draws) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Compute the loss; the entry that wrappers such as DistributedDataParallel call."""
        return self.compute_loss(batch, draws)

    @torch.no_grad()
    def predict_action_chunk(
        self,
        features: Mapping[str, Float[Tensor, "B T_obs tokens dim"]],
        state: Float[Tensor, "B T_obs S"],
        num_steps: int = 0,
        noise: Noise | None = None,
    ) -> Float[Tensor, "B T A"]:
        """Draw one action chunk a row, in the robot's units; its first action is the first observation's.

        Args:
            features: frozen features of each camera.
            state: robot state, in its units.
            num_steps: network evaluations of the sampler; 0 takes the head's own.
            noise: each call draws standard normal noise [B, T, A], where samples shall be repeatable;
                torch's default generator otherwise.
        """
        # shape[0], here and in the heads: len() would fix the batch size of an exported graph.
        shape = (state.shape[0], self.config.policy.pred_horizon, self.config.action_dim)
        draw = noise or (lambda: torch.randn(shape, device=state.device))
        steps = num_steps or self.head.default_num_steps
        chunk = self.head.sample(self._build_cond(features, state), draw, steps)
        return self.action_standardize.invert(chunk)

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`; statistics and encoder identity are inside."""
        write_json(folder / CONFIG_FILE, self.config.model_dump(mode="json"))
        write_atomically(folder / WEIGHTS_FILE, save(self.state_dict()))

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, weights: str = WEIGHTS_FILE, *, revision: str | None = None
    ) -> "VLAAgent":
        """Load a policy that `save_pretrained` wrote.

        Args:
            folder: of the files, or `owner/name` on the Hub.
            weights: the file of weights; always safetensors.
            revision: branch, tag or commit; without one the Hub is never asked.

        Raises:
            CheckpointError: files are missing, damaged or of another form, or cannot be downloaded.
        """
        folder = Path(folder)
        if revision is not None or not folder.exists():
            from vla.policy.hub import locate  # training never talks to the Hub

            folder = locate(folder, revision)
        config = read_config(folder)
        require_shapes(config, folder / weights)
        agent = cls(config)
        agent.load_state_dict(load_file(folder / weights))
        return agent.eval()


def require_shapes(config: AgentConfig, path: Path) -> None:
    """Hold a file of weights against a configuration, before memory is taken for either.

    Raises:
        CheckpointError: the file is missing or damaged, or its tensors are not those of such a policy.
    """
    with torch.device("meta"):
        due = {name: tuple(tensor.shape) for name, tensor in VLAAgent(config).state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error})") from error
    for name in sorted(due.keys() | found.keys()):
        if due.get(name) != found.get(name):
            shapes = [
                list(shape) if shape is not None else "none" for shape in (found.get(name), due.get(name))
            ]
            raise CheckpointError(
                f"{path} does not fit {CONFIG_FILE}: tensor '{name}' is {shapes[0]}, not {shapes[1]}"
            )


def read_config(folder: Path) -> AgentConfig:
    """Read a saved policy's `config.json`.

    Raises:
        CheckpointError: it is missing, damaged or of another form.
    """
    path = folder / CONFIG_FILE
    try:
        return AgentConfig.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        raise CheckpointError(f"{path}: {explain(error, AgentConfig)[:300]}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"no policy at {folder}: {CONFIG_FILE} cannot be read ({error})") from error
