"""OpenVLA (arXiv 2406.09246): one image and an instruction in, the tokens of one action out.

    fused patches of one camera, cached ─> projector ─> Llama 2 ─> tokens ─> middles of bins ─> robot's units
    task text ─> prompt ───────────────────────────────^

The vision towers are frozen, so `vla embed --encoder openvla/openvla-7b` computes their patches once;
projector and language model are trained by low-rank adapters, which alone are in checkpoints. `pred_horizon`
above 1 writes the tokens of a whole chunk, which the published weights never did.

B batch, T pred_horizon, A action size, K = T * A, N patches, V width of a patch, S samples.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from vla.base.errors import CheckpointError, ConfigError
from vla.base.openvla import EXAMPLE, OpenVLAFiles
from vla.base.strict import Depth, Positive, Width
from vla.cache.stream import TASK, Observation, Stream
from vla.policy.agents.chunk_policy import ChunkPolicy, Joint
from vla.policy.agents.policy import Figures
from vla.policy.batch import Batch, Draws
from vla.policy.heads.head import masked_mean
from vla.policy.language.adapters import LoraSettings, add_adapters
from vla.policy.language.instructions import Instructions
from vla.policy.mixture import AnyMetadata
from vla.policy.policy_config import PolicyConfig
from vla.policy.pretrained.openvla_network import load_network
from vla.policy.pretrained.openvla_tokens import ActionTokens, Prompt
from vla.policy.random import Random
from vla.policy.saved_policy import SavedPolicy


class OpenVLALora(LoraSettings):
    """Low-rank adapters, by default as large as those of OpenVLA's own fine-tuning."""

    r: Width = 32
    """Rank of each adapter."""
    alpha: Positive = 16.0
    """An adapter counts alpha / r."""


class OpenVLAConfig(PolicyConfig):
    """OpenVLA: a Llama 2 reads one camera's fused patches and the task text, and writes actions as tokens."""

    type: Literal["openvla"] = "openvla"
    obs_horizon: Literal[1] = 1
    """OpenVLA looks at one instant."""
    pred_horizon: Depth = 1
    num_action_steps: Depth = 1
    normalization: Literal["mean_std", "quantile", "min_max"] = "quantile"
    model: str = EXAMPLE
    """Hub id or directory of the OpenVLA that it begins with."""
    revision: str = "main"
    """Branch, tag or commit on the Hub; meaningless for directories."""
    tune: Literal["lora", "projector", "frozen"] = "lora"
    """What is trained: adapters in projector and language model (pip install 'vla[lora]'), the projector
    alone and in full, or nothing."""
    lora: OpenVLALora = OpenVLALora()
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the frozen weights; bfloat16 is half the memory."""
    unnorm_key: str = ""
    """Dataset of the checkpoint's own whose action statistics are used, such as bridge_orig, to act as it was
    published. None takes those of the cache."""

    @property
    def takes_task(self) -> bool:
        return True

    @property
    def takes_text_features(self) -> bool:
        return False

    def build(self, saved: SavedPolicy) -> "OpenVLAPolicy":
        return OpenVLAPolicy(saved, self)


class OpenVLAPolicy(ChunkPolicy):
    """OpenVLA without its vision towers.

    Args:
        saved: all that is known of it.
        policy: its settings.

    Attributes:
        network: projector and language model; what of them is not trained is in no checkpoint.
        tokens: between numbers and tokens.
        model_sha256: [32] uint8, of the published projector and language model; a checkpoint that was trained
            on others is refused.

    Raises:
        ConfigError: the OpenVLA cannot be loaded, or the cache has not one camera's patches of one.
        MissingPackageError: adapters are asked for, and peft is not installed.
    """

    model_sha256: Tensor
    join_problem = "policy 'openvla' writes one token after the other, which cannot be made to join others"
    export_problem = (
        "OpenVLA's language model and tokeniser are more than a graph; serve the policy: vla serve"
    )

    def __init__(self, saved: SavedPolicy, policy: OpenVLAConfig) -> None:
        super().__init__(saved)
        self.settings, self._stream = policy, one_view(saved, policy.model)
        self._files = files = OpenVLAFiles.open(policy.model, policy.revision)
        self.network = load_network(files, getattr(torch, policy.dtype)).requires_grad_(False)
        width = self.network.projector.fc1.in_features
        if self._stream.shape[1] != width:
            raise ConfigError(
                f"stream {self._stream.describe()} is of another OpenVLA than {policy.model}, whose "
                f"patches have {width} numbers; name the one of the cache: --set policy.model=DIR"
            )
        bins, rows = files.settings.n_action_bins, self.network.lm_head.out_features
        self.tokens = ActionTokens(rows - files.settings.pad_to_multiple_of, bins)
        self.instructions = Instructions(Prompt(files.folder / "tokenizer.json"), "{task}", saved.tasks)
        self._tune(policy)
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        self._left_out = {name for name in self.state_dict() if name.startswith("network.")} - trained
        is_meta = self.action_standardize.mean.device.type == "meta"  # only the shapes are wanted
        sha256 = bytes(32) if is_meta else bytes.fromhex(files.sha256(files.language()))
        self.register_buffer("model_sha256", torch.tensor(list(sha256), dtype=torch.uint8))
        self.register_load_state_dict_pre_hook(_require_same_model)  # type: ignore[no-untyped-call]

    def _tune(self, policy: OpenVLAConfig) -> None:
        """Choose what is trained; as OpenVLA's own adapters, these leave the output layer alone."""
        projector = self.network.projector
        if policy.tune == "lora":
            add_adapters(self.network.model, policy.lora)
            add_adapters(projector, policy.lora.model_copy(update={"targets": ("fc1", "fc2", "fc3")}))
        elif policy.tune == "projector":
            projector.float().requires_grad_(True)  # in bfloat16 small updates are rounded away

    @property
    def observes(self) -> tuple[Stream, ...]:
        """The patches of its camera; it does not see the state."""
        return (self._stream,)

    def describe(self) -> dict[str, Any]:
        """Say what it begins with, and what of it is trained."""
        chosen = self.settings
        trained = {
            "lora": f"adapters of rank {chosen.lora.r}",
            "projector": "the projector",
            "frozen": "nothing",
        }
        return {
            "model": chosen.model,
            "camera": self._stream.name,
            "trained": trained[chosen.tune],
            "actions": f"as {chosen.unnorm_key or 'the cache'} has them",
        }

    def fit(self, cache: AnyMetadata, texts: Float[Tensor, "num_tasks text_dim"] | None) -> None:
        """Take the checkpoint's own action statistics where they are asked for.

        Raises:
            ConfigError: the cache's patches are of another OpenVLA, or there are no such statistics.
        """
        assert self._stream.made_by is not None  # `one_view` sees to it
        encoder = self.config.encoders[self._stream.made_by]
        if encoder.weights_sha256 != self._files.sha256(self._files.vision()):
            raise ConfigError(
                f"the cache holds patches of {encoder.id}, whose vision towers are not those of "
                f"{self.settings.model}; set policy.model to the OpenVLA that the cache was made with"
            )
        if not (key := self.settings.unnorm_key):
            return
        own = self._files.action_statistics(key)
        low, high = torch.tensor(own.q01), torch.tensor(own.q99)
        if len(low) != self.action_dim:
            raise ConfigError(
                f"the action has {self.action_dim} numbers, those of '{key}' have {len(low)}; leave "
                "policy.unnorm_key out to use the statistics of the cache"
            )
        is_scaled = torch.tensor(own.mask or [True] * len(low))
        self.action_standardize.mean.copy_(torch.where(is_scaled, (high + low) / 2, 0.0))
        self.action_standardize.std.copy_(torch.where(is_scaled, (high - low) / 2, 1.0))
        self.action_moves.fill_(True)

    def read_tasks(self, texts: Sequence[str]) -> Int64[Tensor, "n L"]:
        """Return the token ids of the prompts of texts."""
        return self.instructions.ids(texts)

    def is_saved(self, name: str) -> bool:
        return name not in self._left_out

    def train(self, mode: bool = True) -> "OpenVLAPolicy":
        """Switch everything but the network, whose dropout would be randomness that no step's draws hold."""
        super().train(mode)
        self.network.eval()
        return self

    def draw(self, batch: Batch, random: Random) -> Draws:
        """Draw nothing: the loss is the same every time."""
        return {}

    def loss(self, batch: Batch, draws: Draws) -> tuple[Float[Tensor, ""], Figures]:
        """Return the cross-entropy of an action token [nat], the share that is likeliest, and the error.

        Raises:
            ConfigError: there is nothing to train.
        """
        if self.training and self.settings.tune == "frozen":
            raise ConfigError("policy.tune = frozen leaves nothing to train; set it to lora")
        action, valid = self.as_learned(batch.action, None), self.learns(batch)
        tokens = self.tokens.encode(action)
        logits = self.network.logits(*self._seen(batch.observation), tokens.flatten(1)).float()
        error = cross_entropy(logits.transpose(1, 2), tokens.flatten(1), reduction="none").view_as(action)
        first = self.tokens.first
        likeliest = logits[..., first : self.tokens.vocabulary].argmax(dim=-1).view_as(tokens) + first
        off = self.tokens.decode(likeliest) - action
        figures = {
            "token_accuracy": masked_mean((likeliest == tokens).float(), valid, torch.Tensor.clone).mean(),
            "action_l1": masked_mean(off, valid, torch.abs).mean(),
        }
        return masked_mean(error, valid, torch.Tensor.clone).mean(), figures

    @torch.no_grad()
    def samples(
        self,
        observation: Observation,
        random: Random | None,
        num_steps: int,
        *,
        count: int = 1,
        joint: Joint | None = None,
    ) -> Float[Tensor, "S B T A"]:
        """Return the likeliest tokens' chunk, the same each time; see `ChunkPolicy.samples`."""
        if joint is not None:
            raise ConfigError(self.join_problem)
        shape = (self.horizons.pred_horizon, self.action_dim)
        actions = range(self.tokens.first, self.tokens.vocabulary)
        tokens = self.network.generate(*self._seen(observation), shape[0] * shape[1], actions)
        chunk = self.in_robot_units(self.tokens.decode(tokens.unflatten(1, shape)), None)
        return chunk.expand(count, *chunk.shape)

    def _seen(self, observation: Observation) -> tuple[Float[Tensor, "B N V"], Int64[Tensor, "B L"]]:
        """Return the patches and the prompt of the only instant."""
        return observation[self._stream.name][:, -1], observation[TASK][:, -1]


def one_view(saved: SavedPolicy, model: str) -> Stream:
    """Return the stream of an OpenVLA's patches that a policy sees.

    Raises:
        ConfigError: there is none, or several.
    """
    made_by = saved.encoders
    views = [s for s in saved.streams if s.made_by is not None and made_by[s.made_by].type == "openvla"]
    if len(views) == 1:
        return views[0]
    if not views:
        raise ConfigError(
            "policy 'openvla' reads the fused patches of an OpenVLA, which the cache does not have: "
            f"vla embed --encoder {model}"
        )
    raise ConfigError(
        f"OpenVLA sees one camera, and the cache has {', '.join(view.name for view in views)}; choose one: "
        f"--set 'policy.streams=[\"{views[0].name}\"]'"
    )


def _require_same_model(module: OpenVLAPolicy, tensors: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Refuse adapters that were trained on other weights than those under the model's name today."""
    saved = tensors.get(f"{prefix}model_sha256")
    if saved is not None and not torch.equal(saved.cpu(), module.model_sha256.cpu()):
        was, now = (bytes(tensor.tolist()).hex()[:12] for tensor in (saved, module.model_sha256))
        raise CheckpointError(
            f"the policy was trained on the OpenVLA {was}, and {module.settings.model} is {now} today; bring "
            "the former back under that name (a revision of the Hub can be pinned: policy.revision)"
        )
