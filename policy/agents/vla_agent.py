"""The agent: frozen features, sensors and robot state in, action chunks out.

    stream ─> trunk ─────────┐
    stream ─> trunk ─────────┤
    state ──> standardise ───┼─ fusion ─> [B, T_obs, cond_dim] ─> action head
   [task ───> projector] ────┘

The condition is built here, in `_build_cond`: encoders own visual features only, the agent owns the contract
that the head expects (`head.cond_dim`).

B batch, T_obs obs_horizon, T pred_horizon, A action size, C condition width.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor, nn

from vla.base.errors import ConfigError
from vla.base.strict import Width
from vla.cache.stream import STATE, TASK, Observation
from vla.policy.actions.action_form import ACTIONS, ActionsConfig
from vla.policy.actions.demonstrations import Demonstrations
from vla.policy.agents.chunk_policy import ChunkPolicy, Joint
from vla.policy.agents.policy import Figures
from vla.policy.batch import Batch, Draws
from vla.policy.fusion.fusion import FUSIONS, FusionConfig, FusionSizes
from vla.policy.heads.head import HEADS, HeadConfig
from vla.policy.heads.joining import Target
from vla.policy.mixture import AnyMetadata
from vla.policy.nn.bounds import Bounds
from vla.policy.nn.normalize import Standardize
from vla.policy.policy_config import HeadedConfig
from vla.policy.random import Random, RowRandom, StillWhere
from vla.policy.saved_policy import SavedPolicy
from vla.policy.trunks.text import LanguageProjector
from vla.policy.trunks.trunk import TRUNKS, Trunk, TrunkConfig, build_trunks

MOST_CHUNKS = 1 << 16
"""Of each cache, that a head is shown; 65,536 of 16 x 16 numbers are 67 MB."""


class VLAAgentConfig(HeadedConfig):
    """Trunks, fusion, action head.

    The defaults are the full-size experiment: 3 views x 192, condition 384, a
    12-layer head of width 384, 2 observations, 16 predicted and 8 executed actions.
    """

    type: Literal["agent"] = "agent"
    per_view_dim: Width = 192
    """Width of the tokens of each stream."""
    trunks: dict[str, Annotated[TrunkConfig, TRUNKS.choice()]] = Field(default_factory=dict)
    """Trunk of each stream that shall have another than the one of its kind."""
    share_views: bool = False
    """One trunk for all cameras whose images have one size and one trunk's settings, instead of one each."""
    fusion: Annotated[FusionConfig, FUSIONS.choice()] = FUSIONS.by_default()
    """How streams, state and task text become the condition: concat."""
    actions: Annotated[ActionsConfig, ACTIONS.choice()] = ACTIONS.by_default()
    """What is learned of an action: its own numbers (absolute), the way from the current state (relative), or
    from the action before (deltas)."""
    head: Annotated[HeadConfig, HEADS.choice()] = HEADS.by_default()
    """Improved MeanFlow (imf), flow matching (flow), noise prediction (ddpm), regression (mlp), gaussian,
    autoregressive, or tokens of chunks (fast)."""
    language: bool = False
    """Take the task text as a condition too; the cache must hold its features: vla embed --language."""
    language_dim: Width = 64
    """Width that the task text's feature is projected to."""

    @model_validator(mode="after")
    def _reads_the_task_once(self) -> "VLAAgentConfig":
        if self.language and self.fusion.reads_task:
            raise ValueError(f"fusion = {self.fusion.type} reads the task text itself; leave language out")
        return self

    @property
    def takes_task(self) -> bool:
        return self.language or self.fusion.reads_task

    @property
    def takes_text_features(self) -> bool:
        return self.language

    def settled(self) -> "VLAAgentConfig":
        trunks = {name: trunk.settled() for name, trunk in self.trunks.items()}
        return self.model_copy(update={"trunks": trunks})

    def build(self, saved: SavedPolicy) -> "VLAAgent":
        return VLAAgent(saved, self)


class VLAAgent(ChunkPolicy):
    """Trunks, fusion and action head, with the normalisation statistics inside.

    Args:
        saved: all that is known of it.
        policy: its settings.

    Attributes:
        settings: the same.
        camera_names: cameras that it looks through, in order.
        language: projector of the task text's feature; None in a policy that takes none.
        raw_per_step_cond_dim: what trunks, state and task text give of one step, before the fusion.
        per_step_cond_dim: after it; `head.cond_dim` for each token of the fusion.
        global_cond_dim: of all observation steps together.

    Raises:
        ConfigError: a trunk is named for a stream that it does not have, or cannot read.
    """

    def __init__(self, saved: SavedPolicy, policy: VLAAgentConfig) -> None:
        super().__init__(saved, policy.actions.build(saved.action, saved.state, saved.policy.horizons))
        self.settings = policy
        self.camera_names = saved.camera_names
        seen = [stream for stream in saved.streams if stream.name != STATE]
        self.trunks, self._places = build_trunks(
            seen, policy.trunks, policy.per_view_dim, share_images=policy.share_views
        )
        state_dim, action_dim = self.action_form.state_dim, self.action_form.dim
        self.state_standardize = Standardize(state_dim) if state_dim else None
        self.state_bounds = Bounds(state_dim) if state_dim else None
        self.language: LanguageProjector | None = None
        if policy.language:
            assert saved.text_encoder is not None  # SavedPolicy sees to it
            text_dim = saved.text_encoder.feature_dim
            self.language = LanguageProjector(text_dim, len(saved.tasks), policy.language_dim)
        sizes = FusionSizes(
            tokens={name: (trunk.num_tokens, trunk.dim) for name, trunk in self.named_trunks()},
            state_dim=state_dim,
            task_dim=policy.language_dim if policy.language else 0,
            cond_dim=policy.cond_dim,
            obs_horizon=policy.obs_horizon,
            tasks=saved.tasks,
        )
        self.raw_per_step_cond_dim = sizes.raw_dim
        self.fusion = policy.fusion.build(sizes)
        cond_tokens = policy.obs_horizon * self.fusion.num_tokens
        self.per_step_cond_dim = policy.cond_dim * self.fusion.num_tokens
        self.global_cond_dim = policy.cond_dim * cond_tokens
        self.head = policy.head.build(policy, action_dim, cond_tokens)
        self.default_num_steps = self.head.default_num_steps
        self.grad_clip = self.head.grad_clip
        self.export_problem = self.fusion.export_problem or self.head.export_problem
        self.join_problem = self.head.join_problem

    def describe(self) -> dict[str, Any]:
        """Say which members of families it is made of, and how wide its condition is."""
        policy = self.settings
        trunks = {name: type(trunk).__name__ for name, trunk in self.named_trunks()}
        blocks = f" in blocks of {policy.residual_block}" if policy.residual_block > 1 else ""
        sizes = f"{policy.residual} residuals{blocks}, width {policy.n_emb}, {policy.n_layer} layers"
        learned = {} if policy.actions.type == "absolute" else {"actions": policy.actions.type}
        return {
            **learned,
            "trunks": ", ".join(f"{name} {trunk}" for name, trunk in trunks.items()),
            "fusion": policy.fusion.type,
            "head": f"{policy.head.type} ({sizes})",
            "per_view_dim": policy.per_view_dim,
            "raw_per_step_cond_dim": self.raw_per_step_cond_dim,
            "per_step_cond_dim": self.per_step_cond_dim,
        }

    def fit(self, cache: AnyMetadata, texts: Float[Tensor, "num_tasks text_dim"] | None) -> None:
        """Take the statistics of what it sees, and the features of the task texts."""
        for name, trunk in self.named_trunks():
            trunk.fit(cache.statistics[name])
        if self.state_standardize is not None and self.state_bounds is not None:
            state = cache.statistics[STATE]
            self.state_standardize.fit_as(state, self.settings.normalization)
            if state.min is not None and state.max is not None:
                self.state_bounds.fit(state.min, state.max)
        action = cache.statistics[self.config.action.name]
        lowest, highest = map(torch.tensor, (action.min, action.max))
        self.head.fit_range(self.action_standardize(lowest), self.action_standardize(highest))
        if self.language is not None and texts is not None:
            self.language.fit(texts)

    def fit_demonstrations(self, demonstrations: Demonstrations | None) -> None:
        """Show the head chunks of the demonstrations, if it asks for them.

        Raises:
            ConfigError: there are none to show.
        """
        if not self.head.needs_chunks:
            return
        if demonstrations is None:
            raise ConfigError(
                f"head '{self.settings.head.type}' learns its tokens from demonstrations; pass "
                "demonstrations= to for_cache, or train with vla train"
            )
        self.head.fit_chunks(
            self.as_learned(batch.action, batch.observation.get(STATE))
            for batch in demonstrations.blocks(most=MOST_CHUNKS)
        )

    @property
    def num_cameras(self) -> int:
        return len(self.camera_names)

    @property
    def task_features(self) -> Float[Tensor, "num_tasks text_dim"] | None:
        return None if self.language is None else self.language.features

    def read_tasks(self, texts: Sequence[str]) -> Int64[Tensor, "n tokens"] | None:
        return self.fusion.read_tasks(texts)

    def is_saved(self, name: str) -> bool:
        room, _, rest = name.partition(".")
        return room != "fusion" or self.fusion.is_saved(rest)

    def named_trunks(self) -> Iterable[tuple[str, Trunk]]:
        """Yield each stream's name and its trunk, in the order of the condition; a trunk may be shared."""
        for name, place in self._places.items():
            trunk = self.trunks[place]
            assert isinstance(trunk, Trunk)
            yield name, trunk

    def _build_cond(self, observation: Observation, *, live: bool = False) -> Float[Tensor, "B N C"]:
        """Build the condition: the tokens of each observation step, one step after the other.

        Args:
            observation: see `Policy.act`.
            live: keep the state within the bounds of the demonstrations. A robot that is driven somewhere
                else is no reason for numbers that training never saw.

        Raises:
            ConfigError: what says the task text is missing, or is given to an agent that takes none.
        """
        if self.settings.takes_task != (TASK in observation):
            takes = "needs" if self.settings.takes_task else "does not take"
            what = "the words" if self.settings.fusion.reads_task else "the feature"
            raise ConfigError(f"this agent {takes} `{TASK}`, {what} of the task text (policy.language)")
        tokens = {name: trunk(observation[name]) for name, trunk in self.named_trunks()}
        state = None
        if self.state_standardize is not None and self.state_bounds is not None:
            state = self.action_form.encode_state(observation[STATE])
            state = self.state_standardize(self.state_bounds(state) if live else state)
        task = observation.get(TASK) if self.language is None else self.language(observation[TASK])
        return self.fusion(tokens, state, task)

    def draw(self, batch: Batch, random: Random) -> Draws:
        """Draw the noise and times of one batch's loss."""
        return self.head.draw(len(batch.action), self._noise_of_what_moves(random))

    def _noise_of_what_moves(self, random: Random) -> Random:
        """Return a source whose noise is 0 where an action never moves, as the demonstrations are."""
        return StillWhere(random, self.head.shape, self.action_moves)

    def loss(self, batch: Batch, draws: Draws) -> tuple[Float[Tensor, ""], Figures]:
        """Return the head's loss on a batch, and figures worth logging."""
        cond = self._build_cond(batch.observation)
        action = self.as_learned(batch.action, batch.observation.get(STATE))
        return self.head.compute_loss(cond, action, self.learns(batch), draws)

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
        """Draw chunks of one condition, one after the other; see `ChunkPolicy.samples`."""
        source = self._noise_of_what_moves(random or RowRandom(device=self.device))
        cond, state = self._build_cond(observation, live=True), observation.get(STATE)
        how = (cond, source, num_steps or self.default_num_steps)
        if joint is None:
            drawn = [self.head.sample(*how) for _ in range(count)]
        else:
            target = Target(self.as_learned(joint.actions, state), joint.weight, joint.max_guidance)
            drawn = [self.head.sample_joined(*how, target) for _ in range(count)]
        return torch.stack([self.in_robot_units(chunk, state) for chunk in drawn])

    @torch.no_grad()
    def action_error(self, batch: Batch, random: Random) -> Float[Tensor, ""]:
        """Compare whole chunks with demonstrations, those actions too that are not executed.

        In standard deviations of what is learned, so figures of other `policy.actions` are no comparison.
        """
        chunk, state = (
            self.predict_action_chunk(batch.observation, random=random),
            batch.observation.get(STATE),
        )
        error = self.as_learned(chunk, state) - self.as_learned(batch.action, state)
        return error[~batch.action_is_pad].square().mean().sqrt()

    def typical(self, stream: str, normal: Tensor) -> Tensor:
        """Return numbers in the robot's units, for the state; see `Policy.typical`."""
        if stream == STATE and self.state_standardize is not None:
            learned = normal[..., torch.arange(self.action_form.state_dim) % normal.shape[-1]]
            return self.action_form.decode_state(self.state_standardize.invert(learned))
        return normal

    def networks(self) -> Iterable[nn.Module]:
        return self.head.children()
