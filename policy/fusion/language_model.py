"""The language model as fusion: it reads the instruction, the streams' tokens and the state as one sequence.

    instruction │ stream tokens, state, queries of o-1 │ stream tokens, state, queries of o0
    embeddings  │ projected to the model's width       │ …
                            │ causal language model
                the hidden states at the queries, mapped to the condition's width

The model is causal, so the queries of an instant see the instruction and what was observed until then.
Queries are learned vectors (MetaQueries, arXiv 2504.06256; the action queries of VLA-Adapter, arXiv
2509.09372). With `layers` above 1 the states of several last layers become condition tokens; VLA-Adapter
takes all layers.

The model is always in evaluation mode: its dropout would be randomness that no step's draws hold, and a
resumed run would not be the run that was begun.

B batch, T_obs obs_horizon, L tokens of the instruction, M tokens of an instant, Q queries, H width of the
model, C condition width.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from vla.base.errors import CheckpointError, ConfigError
from vla.base.strict import Depth, Positive
from vla.policy.fusion.fusion import Fusion, FusionConfig, FusionSizes
from vla.policy.language.adapters import LoraSettings, add_adapters
from vla.policy.language.instructions import PADDING, Instructions
from vla.policy.nn.layers import Float32Linear, RMSNorm

MANY_WORDS = 4096
"""Of which the size of a word is taken."""


class LanguageModelConfig(FusionConfig):
    """A causal language model of transformers reads the instruction, the streams and the state."""

    reads_task = True
    type: Literal["language_model"] = "language_model"
    model: str = "Qwen/Qwen2.5-0.5B"
    """Hub id or directory of the pretrained model."""
    revision: str = "main"
    """Branch, tag or commit on the Hub; meaningless for directories."""
    tune: Literal["frozen", "lora", "full"] = "frozen"
    """What of it is trained: nothing, adapters (pip install 'vla[lora]'), or all."""
    lora: LoraSettings = LoraSettings()
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of its frozen weights; bfloat16 is half the memory."""
    lr_scale: Positive = 1.0
    """Learning rate of its weights or adapters, in that of the rest; 1 suits adapters, 0.03 all weights."""
    queries: Annotated[int, Field(ge=1, le=1024)] = 8
    """Learned tokens of each instant, whose hidden states are the condition."""
    layers: Depth = 1
    """Last layers whose hidden states at the queries are condition tokens."""
    prompt: str = "{task}"
    """What it reads, with the task text in place of {task}."""

    @field_validator("prompt")
    @classmethod
    def _holds_the_task(cls, prompt: str) -> str:
        if "{task}" not in prompt:
            raise ValueError("it must hold {task}, the place of the task text")
        return prompt

    @model_validator(mode="after")
    def _trains_in_float32(self) -> "LanguageModelConfig":
        if self.tune == "full" and self.dtype != "float32":
            raise ValueError(
                "tune = full needs dtype = float32: bfloat16 rounds small updates away; products are in "
                "bfloat16 on a GPU in any case (train.autocast)"
            )
        return self

    def build(self, sizes: FusionSizes) -> "LanguageModelFusion":
        return LanguageModelFusion(self, sizes)


class LanguageModelFusion(Fusion):
    """A pretrained language model between projections.

    Args:
        config: which model, and what of it is trained.
        sizes: what comes in and goes out.

    Attributes:
        model: of transformers, without its output layer; what of it is not trained is in no checkpoint.
        model_sha256: [32] uint8, of the pretrained model; a checkpoint of another one is refused.

    Raises:
        ConfigError: the model cannot be loaded, or the sequence is longer than it can read.
        MissingPackageError: LoRA is asked for, and peft is not installed.
    """

    model_sha256: Tensor
    export_problem = "a language model and its tokeniser are more than a graph; serve the policy: vla serve"

    def __init__(self, config: LanguageModelConfig, sizes: FusionSizes) -> None:
        super().__init__()
        from vla.policy.language.base_model import load_base_model

        base = load_base_model(config.model, config.revision, getattr(torch, config.dtype))
        self.instructions = Instructions(base.tokenizer, config.prompt, sizes.tasks)
        self.model: Any = base.model.requires_grad_(config.tune == "full").eval()
        if config.tune == "lora":
            add_adapters(self.model, config.lora)
        self.model.lr_scale = config.lr_scale  # see `build_optimizer`
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        self._left_out = {f"model.{name}" for name in self.model.state_dict() if name not in trained}
        self.register_buffer("model_sha256", torch.tensor(list(base.sha256), dtype=torch.uint8))
        self.register_load_state_dict_pre_hook(_require_same_model)  # type: ignore[no-untyped-call]

        self._names, self._config = tuple(sizes.tokens), config
        width, layers = int(self.model.config.hidden_size), config.layers
        self.stream_in = nn.ModuleList(nn.Linear(dim, width) for _, dim in sizes.tokens.values())
        self.state_in = Float32Linear(sizes.state_dim, width) if sizes.state_dim else None
        self.queries = nn.Parameter(torch.randn(config.queries, width))
        self._scale_to(self.model.get_input_embeddings())
        self.outputs = nn.ModuleList(
            nn.Sequential(RMSNorm(width), Float32Linear(width, sizes.cond_dim)) for _ in range(layers)
        )
        self.num_tokens = config.queries * layers
        self._require_fit(sizes)

    def train(self, mode: bool = True) -> "LanguageModelFusion":
        """Switch everything but the language model, which stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def is_saved(self, name: str) -> bool:
        return name not in self._left_out

    def read_tasks(self, texts: Sequence[str]) -> Int64[Tensor, "n L"]:
        """Return the token ids of texts; see `vla.policy.language.instructions`."""
        return self.instructions.ids(texts)

    def forward(
        self,
        tokens: Mapping[str, Float[Tensor, "B T_obs _N _D"]],
        state: Float[Tensor, "B T_obs S"] | None,
        task: Int64[Tensor, "B T_obs L"] | None,
    ) -> Float[Tensor, "B T_obs_K C"]:
        assert task is not None  # the agent sees to it
        ids = task[:, -1]  # what is to be done now, should a window reach over a change of task
        known = ids != PADDING
        instruction = self.model.get_input_embeddings()(ids.clamp(min=0))
        parts = [linear(tokens[name]) for name, linear in zip(self._names, self.stream_in, strict=True)]
        if self.state_in is not None:
            parts.append(self.state_in(state)[..., None, :])
        parts.append(self.queries.expand(*task.shape[:2], -1, -1))
        instants = torch.cat([part.to(instruction.dtype) for part in parts], dim=2)
        known = torch.cat([known, known.new_ones(len(known), instants[0, :, :, 0].numel())], dim=1)
        found = self.model(
            inputs_embeds=torch.cat([instruction, instants.flatten(1, 2)], dim=1),
            attention_mask=known.long(),
            # Padding takes no place, so an instruction reads the same beside a longer one.
            position_ids=known.long().cumsum(dim=1).sub(1).clamp(min=0),
            use_cache=False,
            output_hidden_states=self._config.layers > 1,
        )
        last = found.hidden_states if self._config.layers > 1 else [found.last_hidden_state]
        read = []
        for states, output in zip(last[-self._config.layers :], self.outputs, strict=True):
            of_instants = states[:, ids.shape[1] :].unflatten(1, instants.shape[1:3])
            read.append(output(of_instants[:, :, -self._config.queries :].float()))
        return torch.cat(read, dim=2).flatten(1, 2)

    @torch.no_grad()
    def _scale_to(self, embeddings: nn.Embedding) -> None:
        """Let what is injected begin as large as a word; of a new model those have a spread of 0.02."""
        # What the module gives, not its weights: Gemma 3 multiplies them.
        words = embeddings(torch.arange(min(embeddings.num_embeddings, MANY_WORDS)))
        size = words.float().square().mean().sqrt()
        linears: list[Any] = [*self.stream_in, *([] if self.state_in is None else [self.state_in])]
        for linear in linears:
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            linear.weight.mul_(size)
            nn.init.zeros_(linear.bias)
        self.queries.mul_(size)

    def _require_fit(self, sizes: FusionSizes) -> None:
        if self._config.layers > (depth := int(self.model.config.num_hidden_layers)):
            raise ConfigError(
                f"{self._config.model} has {depth} layers, and policy.fusion.layers is {self._config.layers}"
            )
        streams = sum(count for count, _ in sizes.tokens.values())
        count = streams + bool(sizes.state_dim) + self._config.queries
        length = self.instructions.length + sizes.obs_horizon * count
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most is not None and length > most:
            raise ConfigError(
                f"{self._config.model} reads {most} tokens, and a sequence has {length}: an instruction of "
                f"{self.instructions.length} and {sizes.obs_horizon} instants of {count}; take trunks with "
                "fewer tokens, such as perceiver, or a smaller policy.obs_horizon"
            )


def _require_same_model(
    module: LanguageModelFusion, tensors: Mapping[str, Tensor], prefix: str, *_: Any
) -> None:
    """Refuse weights that were trained on another pretrained model than the one under its name today."""
    saved = tensors.get(f"{prefix}model_sha256")
    if saved is not None and not torch.equal(saved.cpu(), module.model_sha256.cpu()):
        was, now = (bytes(tensor.tolist()).hex()[:12] for tensor in (saved, module.model_sha256))
        raise CheckpointError(
            f"the policy was trained on the language model {was}, and {module._config.model} is {now} today; "
            "bring the former back under that name, or name it in config.json (policy.fusion.model, revision)"
        )
