"""What training, evaluation, the server and export ask of a policy, whatever it is; and how one is loaded.

An observation is a dictionary of streams over `obs_horizon` instants, [B, T_obs, *shape], raw as the cache
holds them: what is standardised, is so inside. See `vla.policy.batch`.

B batch, T_obs obs_horizon, T pred_horizon, A action size, P its size as it is learned, S state size.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from safetensors.torch import save
from torch import Tensor, nn

from vla.base.errors import CheckpointError, ConfigError
from vla.base.files import write_atomically, write_json
from vla.base.horizons import Horizons
from vla.cache.movement import movement
from vla.cache.stream import Observation, Stream
from vla.policy.actions.action_form import ActionForm
from vla.policy.actions.demonstrations import Demonstrations
from vla.policy.batch import Batch, Draws
from vla.policy.mixture import AnyMetadata
from vla.policy.nn.normalize import Standardize
from vla.policy.policy_config import PolicyConfig
from vla.policy.random import Random
from vla.policy.saved_policy import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    SavedPolicy,
    added_since,
    read_config,
    read_tensors,
    require_shapes,
)

AnyPolicy = TypeVar("AnyPolicy", bound="Policy")  # typing.Self is too new for the checker of shapes
Figures = dict[str, Float[Tensor, ""]]


class Policy(nn.Module):
    """A policy, with the normalisation statistics inside.

    A new one has the identity for normalisation; `for_cache` makes one that is ready to train.

    Args:
        saved: all that is known of it.
        form: of its actions; None is the robot's own numbers.

    Attributes:
        config: the same; `config.policy` are its settings.
        horizons: how many instants it sees, predicts and executes.
        action_standardize: between the units of what is learned and about unit scale.
        action_form: between the robot's actions and what is learned of them, P numbers an action.
        action_moves: [P] bool, False where these never moved in the demonstrations.
        default_num_steps: sampling steps where nothing else is asked.
        grad_clip: largest norm of the gradients where `train.grad_clip` does not say.
        export_problem: why a graph for other programs cannot be made of it; empty where it can.
        share_problem: why its files are of no use on another machine; empty where they are.
    """

    default_num_steps: int = 1
    grad_clip: float = 1.0
    export_problem: str = ""
    share_problem: str = ""
    action_moves: Tensor

    def __init__(self, saved: SavedPolicy, form: ActionForm | None = None) -> None:
        super().__init__()
        self.config = saved
        self.horizons: Horizons = saved.policy.horizons
        self.action_form = form or ActionForm(saved.action, saved.state)
        self.action_standardize = Standardize(self.action_form.dim)
        self.register_buffer("action_moves", torch.ones(self.action_form.dim, dtype=torch.bool))

    @classmethod
    def for_cache(
        cls: type[AnyPolicy],
        config: PolicyConfig,
        cache: AnyMetadata,
        texts: Float[Tensor, "num_tasks text_dim"] | None = None,
        demonstrations: Demonstrations | None = None,
    ) -> AnyPolicy:
        """Build an untrained policy that fits a cache and standardises with its statistics.

        Args:
            config: what the policy is.
            cache: the metadata of the cache, or of a mixture.
            texts: `FeatureCache.text_features()`, for a policy that takes the task text.
            demonstrations: for one that learns another form of actions than the robot's, or tokens of them.

        Raises:
            ConfigError: it asks for a stream, or for a trunk of one, that is not there.
        """
        config = config.settled()
        policy = config.build(SavedPolicy.for_cache(config, cache))
        if not isinstance(policy, cls):
            raise ConfigError(
                f"policy.type = '{config.type}' is a {type(policy).__name__}, not a {cls.__name__}"
            )
        policy.action_form.fit(cache.statistics[policy.config.action.name])
        quantiles = config.normalization == "quantile"
        cache = policy.action_form.described(cache, demonstrations, quantiles)
        action = cache.statistics[policy.config.action.name]
        policy.action_standardize.fit_as(action, config.normalization)
        constant = torch.tensor(movement(action.mean, action.std).constant)
        policy.action_moves.copy_(~constant)
        policy.fit(cache, texts)
        policy.fit_demonstrations(demonstrations)
        return policy

    @abstractmethod
    def fit(self, cache: AnyMetadata, texts: Float[Tensor, "num_tasks text_dim"] | None) -> None:
        """Take the statistics of what it sees, and the features of the task texts; see `for_cache`."""

    def fit_demonstrations(self, demonstrations: Demonstrations | None) -> None:
        """Look at what it will be trained on, if it must; the last that `for_cache` does."""

    @property
    def observes(self) -> tuple[Stream, ...]:
        """The streams that it sees, the state among them; `tasks` says whether `task` comes too."""
        return self.config.streams

    @property
    def action_dim(self) -> int:
        return self.config.action.channels

    @property
    def fps(self) -> float:
        """Control rate of the demonstrations [Hz]."""
        return self.config.fps

    @property
    def tasks(self) -> tuple[str, ...]:
        """The task texts that it tells apart; none if it takes none."""
        return self.config.tasks

    @property
    def task_features(self) -> Float[Tensor, "num_tasks text_dim"] | None:
        """The features of `tasks`; None if it takes none."""
        return None

    def read_tasks(self, texts: Sequence[str]) -> Int64[Tensor, "n tokens"] | None:
        """Return `task` of an observation for texts, where it reads words itself; None where it does not."""
        return None

    @property
    def device(self) -> torch.device:
        return self.action_standardize.mean.device

    def in_robot_units(
        self, chunk: Float[Tensor, "B T P"], state: Float[Tensor, "B T_obs S"] | None
    ) -> Float[Tensor, "B T A"]:
        """Turn a standardised chunk into commands; what never moved is commanded to be what it was."""
        learned = self.action_standardize.invert(chunk)
        learned = torch.where(self.action_moves, learned, self.action_standardize.mean)
        return self.action_form.decode(learned, state)

    def as_learned(
        self, action: Float[Tensor, "B T A"], state: Float[Tensor, "B T_obs S"] | None
    ) -> Float[Tensor, "B T P"]:
        """Turn a chunk of the robot's actions into the standardised one that is learned."""
        return self.action_standardize(self.action_form.encode(action, state))

    def learns(self, batch: Batch) -> Bool[Tensor, "B T P"]:
        """Tell which numbers of a batch's actions are learned: no padding, nothing that never moves."""
        return ~batch.action_is_pad[:, :, None] & self.action_moves

    @abstractmethod
    def draw(self, batch: Batch, random: Random) -> Draws:
        """Draw everything random about one batch's loss, a row each."""

    @abstractmethod
    def loss(self, batch: Batch, draws: Draws) -> tuple[Float[Tensor, ""], Figures]:
        """Return the loss on a batch, and figures worth logging; a plain function of tensors."""

    def forward(self, batch: Batch, draws: Draws) -> tuple[Float[Tensor, ""], Figures]:
        """Compute the loss; the entry that wrappers such as DistributedDataParallel call."""
        return self.loss(batch, draws)

    @abstractmethod
    def act(
        self, observation: Observation, memory: Any = None, random: Random | None = None, num_steps: int = 0
    ) -> tuple[Float[Tensor, "B num_action_steps A"], Any]:
        """Choose the next actions of a batch of robots.

        Args:
            observation: `observes` over `obs_horizon` instants, oldest first, and `task` if it takes one.
            memory: what this answered the last time; None at the start of an episode.
            random: where samples shall be repeatable; torch's default generator otherwise.
            num_steps: sampling steps; 0 takes the policy's own.

        Returns:
            The actions in the robot's units, the first one for now; and the memory, None where there is none.
        """

    @torch.no_grad()
    def action_error(self, batch: Batch, random: Random) -> Float[Tensor, ""]:
        """Compare samples with demonstrations: root mean square, in standard deviations of the actions."""
        actions, _ = self.act(batch.observation, random=random)
        executed = self.horizons.executed
        error = self.action_standardize(actions) - self.action_standardize(batch.action[:, executed])
        return error[~batch.action_is_pad[:, executed]].square().mean().sqrt()

    def typical(self, stream: str, normal: Tensor) -> Tensor:
        """Give standard normal numbers the mean and spread of a stream's demonstrations, where known.

        Args:
            stream: its name.
            normal: of the stream's shape.
        """
        return normal

    def describe(self) -> dict[str, Any]:
        """Say what people want to know of it, beside its streams, horizons and encoders."""
        return {}

    def networks(self) -> Iterable[nn.Module]:
        """Return the parts that are worth compiling where it acts."""
        return ()

    def is_saved(self, name: str) -> bool:
        """Tell whether a tensor of the state is written to files.

        A policy whose large part is frozen, and which its constructor loads from elsewhere, says no of that.
        """
        return True

    def saved_state(self) -> dict[str, Tensor]:
        """Return the tensors that are written to files."""
        return {name: tensor for name, tensor in self.state_dict().items() if self.is_saved(name)}

    def load_saved(self, tensors: dict[str, Tensor]) -> None:
        """Take the tensors that `saved_state` gave; the others stay as they are.

        Raises:
            ValueError: some are missing, or are too many; RuntimeError: they have other shapes.
        """
        due = self.saved_state()
        tensors = {**added_since(due, tensors.keys()), **tensors}
        if odd := sorted(tensors.keys() ^ due.keys()):
            raise ValueError(f"tensor '{odd[0]}' is {'too many' if odd[0] in tensors else 'missing'}")
        self.load_state_dict(tensors, strict=False)

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`; statistics and encoder identities are inside."""
        write_json(folder / CONFIG_FILE, self.config.model_dump(mode="json"))
        write_atomically(folder / WEIGHTS_FILE, save(self.saved_state()))

    @classmethod
    def from_pretrained(
        cls: type[AnyPolicy], folder: str | Path, weights: str = WEIGHTS_FILE, *, revision: str | None = None
    ) -> AnyPolicy:
        """Load a policy of this class; see `load_policy`.

        Raises:
            CheckpointError: it is another one, or cannot be loaded.
        """
        policy = load_policy(folder, weights, revision=revision)
        if not isinstance(policy, cls):
            raise CheckpointError(f"{folder} is a {type(policy).__name__}, not a {cls.__name__}")
        return policy


def load_policy(folder: str | Path, weights: str = WEIGHTS_FILE, *, revision: str | None = None) -> Policy:
    """Load a policy that `save_pretrained` wrote, now or before there were streams, ready to act.

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
    saved = read_config(folder)
    require_shapes(saved, folder / weights)
    policy = saved.policy.build(saved)
    policy.load_saved(read_tensors(folder, folder / weights))
    return policy.eval()
