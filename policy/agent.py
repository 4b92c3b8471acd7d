"""The agent: frozen features and robot state in, action chunks out. It never sees an image.

    features ─> per-view projectors ─┐
    state ────> standardise ─────────┼─ concat ─> cond_projector ─> [B, T_obs, cond_dim] ─> action head
   [language ─> projector] ──────────┘

The projector of the condition lives here, in `_build_cond`: encoders own visual features only,
the agent owns the contract that the head expects (`head.cond_dim`).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vla.base.errors import CheckpointError, ConfigError
from vla.base.files import write_atomically, write_json
from vla.cache.metadata import CacheMetadata
from vla.policy.agent_config import CONFIG_FILE, TrainingData
from vla.policy.agent_config import AgentConfig as AgentConfig
from vla.policy.agent_config import read_config as read_config
from vla.policy.batch import Batch
from vla.policy.heads import build_head
from vla.policy.heads.head import Draws, Noise
from vla.policy.nn.normalize import Standardize
from vla.policy.policy_config import PolicyConfig
from vla.policy.projector import ViewProjector
from vla.policy.training.sampling import RowRandom
from vla.policy.trunks.text import LanguageProjector

WEIGHTS_FILE = "model.safetensors"


class VLAAgent(nn.Module):
    """Projectors, condition and action head, with the normalisation statistics inside.

    A new agent has the identity for normalisation; `for_cache` makes one that is ready to train.

    Attributes:
        camera_names: views in concatenation order.
        language: projector of the task text's feature; None in a policy that takes none.
        raw_per_step_cond_dim: projected views, state and task text of one step, before the condition
            projector.
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
        self.language: LanguageProjector | None = None
        if policy.language:
            assert config.text_encoder is not None  # AgentConfig sees to it
            text_dim = config.text_encoder.feature_dim
            self.language = LanguageProjector(text_dim, len(config.tasks), policy.language_dim)
        self.raw_per_step_cond_dim = self.projector.output_dim + config.state_dim
        self.raw_per_step_cond_dim += policy.language_dim if policy.language else 0
        self.per_step_cond_dim = policy.cond_dim
        self.global_cond_dim = policy.cond_dim * policy.obs_horizon
        self.cond_projector = nn.Linear(self.raw_per_step_cond_dim, self.per_step_cond_dim)
        self.head = build_head(policy, config.action_dim)

    @classmethod
    def for_cache(
        cls,
        policy: PolicyConfig,
        cache: CacheMetadata,
        language: Float[Tensor, "num_tasks text_dim"] | None = None,
    ) -> "VLAAgent":
        """Build an untrained agent that fits a cache and standardises with its statistics.

        Args:
            policy: what the agent is.
            cache: the metadata of the cache.
            language: `FeatureCache.language`, for a policy that takes the task text.
        """
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
                    tasks=cache.tasks,
                ),
                text_encoder=cache.language.encoder if policy.language and cache.language else None,
            )
        )
        agent.state_standardize.fit(cache.state_statistics.mean, cache.state_statistics.std)
        agent.action_standardize.fit(cache.action_statistics.mean, cache.action_statistics.std)
        lowest, highest = map(torch.tensor, (cache.action_statistics.min, cache.action_statistics.max))
        agent.head.fit_range(agent.action_standardize(lowest), agent.action_standardize(highest))
        agent.projector.fit(cache.feature_statistics)
        if agent.language is not None and language is not None:
            agent.language.fit(language)
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
        language: Float[Tensor, "B text_dim"] | None = None,
    ) -> Float[Tensor, "B T_obs C"]:
        """Build the condition of each observation step, [B, T_obs, per_step_cond_dim].

        Raises:
            ConfigError: the task text's feature is missing, or is given to an agent that takes none.
        """
        parts = [self.projector(features), self.state_standardize(state)]
        if (self.language is None) != (language is None):
            takes = "needs" if self.language is not None else "does not take"
            raise ConfigError(
                f"this agent {takes} `language`, the feature of the task text (policy.language)"
            )
        if self.language is not None:
            parts.append(self.language(language)[:, None].expand(-1, state.shape[1], -1))
        return self.cond_projector(torch.cat(parts, dim=-1))

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
        cond = self._build_cond(batch.features, batch.state, batch.language)
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
        language: Float[Tensor, "B text_dim"] | None = None,
    ) -> Float[Tensor, "B T A"]:
        """Draw one action chunk a row, in the robot's units; its first action is the first observation's.

        Args:
            features: frozen features of each camera.
            state: robot state, in its units.
            num_steps: network evaluations of the sampler; 0 takes the head's own.
            noise: each call draws standard normal noise [B, T, A], where samples shall be repeatable;
                torch's default generator otherwise.
            language: feature of each row's task text, for agents that take it; `language.features` has
                those of `config.tasks`.
        """
        # shape[0], here and in the heads: len() would fix the batch size of an exported graph.
        shape = (state.shape[0], self.config.policy.pred_horizon, self.config.action_dim)
        draw = noise or (lambda: torch.randn(shape, device=state.device))
        steps = num_steps or self.head.default_num_steps
        chunk = self.head.sample(self._build_cond(features, state, language), draw, steps)
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
            from vla.policy.sharing.hub import locate  # training never talks to the Hub

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
