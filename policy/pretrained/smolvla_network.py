"""SmolVLA's network after the vision tower (arXiv 2506.01844): observation and noisy actions to velocity.

    images, text ──> language model, frozen ──┐ keys and values of each layer
    state ──> state_proj ──> the same ────────┤
    x_t, time ──> action expert <─────────────┘ ──> velocity

Images and text see each other and neither the state nor the actions. So the language model reads them without
a gradient, once for a sample of however many steps; only the state's token, whose projection is trained,
goes through it with one. LeRobot computes all of it in one pass with a gradient; the numbers are the same.

Every second layer of the expert attends to the language model alone, the others to earlier actions too. The
model is defined by LeRobot's implementation (0.6.1, policies/smolvla), which this follows in its own words.

B batch, N tokens of images and text, T actions, W width, X width of the expert, A max_action_dim.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from vla.base.errors import ConfigError
from vla.policy.pretrained.smolvla_files import NAMES, SmolVLAFiles, lerobot_name
from vla.policy.pretrained.smolvla_layers import Attention, Layer, Memory, Norm, Stack, rotate


@dataclass(frozen=True)
class Prefix:
    """What the expert reads of an observation."""

    memories: list[Memory]
    """Of each layer: the language model's, as that layer of the expert takes them."""
    valid: Bool[Tensor, "B K"]
    """False where a text is shorter than others."""


class SmolVLANetwork(nn.Module):
    """The language model and the action expert.

    Args:
        files: say the sizes.

    Raises:
        ConfigError: they do not fit together.
    """

    def __init__(self, files: SmolVLAFiles) -> None:
        super().__init__()
        self._settings = settings = files.settings
        text = files.vlm_table.get("text_config")
        heads = text.get("num_attention_heads") if isinstance(text, dict) else None
        if not isinstance(text, dict) or not isinstance(heads, int):
            raise ConfigError(
                f"{settings.vlm_model_name}: config.json says no text_config.num_attention_heads"
            )
        eps = float(text.get("rms_norm_eps", 1e-6))
        count = sum(
            name.startswith(NAMES["language."]) and name.endswith(".input_layernorm.weight")
            for name in files.shapes
        )
        self._joint = [settings.reads_along(layer) for layer in range(count)]

        def sizes(stack: str) -> tuple[int, int, int]:
            """Width, width of the queries, hidden width of the MLP."""
            (queries, width) = files.shape(f"{NAMES[stack]}layers.0.self_attn.q_proj.weight")
            return width, queries, files.shape(f"{NAMES[stack]}layers.0.mlp.gate_proj.weight")[0]

        width, queries, hidden = sizes("language.")
        own, _, own_hidden = sizes("expert.")
        keys = files.shape(f"{NAMES['language.']}layers.0.self_attn.k_proj.weight")[0]
        one = queries // heads
        vocabulary = files.shape(f"{NAMES['language.']}embed_tokens.weight")[0]
        self.language = Stack(
            [Layer(Attention(width, heads, keys // one, one), hidden, eps) for _ in self._joint],
            norm=Norm(width, eps),
            words=nn.Embedding(vocabulary, width),
        )
        self.language.requires_grad_(False)
        self.expert = Stack(
            [
                Layer(Attention(own, heads, keys // one, one, 0 if joint else keys), own_hidden, eps)
                for joint in self._joint
            ],
            norm=Norm(own, eps),
        )
        self.state_proj = nn.Linear(settings.max_state_dim, width).requires_grad_(settings.train_state_proj)
        self.action_in_proj = nn.Linear(settings.max_action_dim, own)
        self.action_out_proj = nn.Linear(own, settings.max_action_dim)
        self.action_time_mlp_in = nn.Linear(2 * own, own)
        self.action_time_mlp_out = nn.Linear(own, own)

    @property
    def width(self) -> int:
        """Of an image's tokens."""
        return self.language.embed_tokens.embedding_dim

    def read(
        self,
        images: Float[Tensor, "B _I W"],
        words: Int64[Tensor, "B _L"],
        state: Float[Tensor, "B S"],
    ) -> Prefix:
        """Let the language model read an observation.

        Args:
            images: what the connector says of all cameras, one after the other.
            words: numbers of a text's tokens; -1 past its end.
            state: normalised, padded to max_state_dim.
        """
        there = words >= 0
        with torch.no_grad():
            scale = math.sqrt(self.width)
            tokens = torch.cat([images, self.language.embed_tokens(words.clamp(min=0))], dim=1) * scale
            valid = torch.cat([there.new_ones(images.shape[:2]), there], dim=1)
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
            memories = self._through_language(tokens, positions, valid, None)
        place = valid.sum(dim=1, keepdim=True)
        valid = torch.cat([valid, there.new_ones(len(there), 1)], dim=1)
        memories = self._through_language(self.state_proj(state)[:, None], place, valid, memories)
        return Prefix([self._for_expert(layer, memory) for layer, memory in enumerate(memories)], valid)

    def _through_language(
        self,
        x: Float[Tensor, "B N W"],
        positions: Int64[Tensor, "_B N"],
        valid: Bool[Tensor, "B K"],
        before: list[Memory] | None,
    ) -> list[Memory]:
        """Return the memory of each layer, that of the tokens before included."""
        memories: list[Memory] = []
        for number, layer in enumerate(self.language.layers):
            assert isinstance(layer, Layer)
            normed, attention = layer.input_layernorm(x), layer.self_attn
            memory = attention.remember(normed)
            memory = memory._replace(keys=rotate(memory.keys, positions))
            memories.append(memory if before is None else before[number].followed_by(memory))
            if number + 1 < len(self.language.layers):  # what comes out of the last layer nobody reads
                queries = rotate(attention.queries(normed), positions)
                x = layer(x, attention.attend(queries, memories[number], valid[:, None]))
        return memories

    def _for_expert(self, number: int, memory: Memory) -> Memory:
        """Project a memory where the expert's layer has projections for it."""
        if self._joint[number]:
            return memory
        attention = self.expert.layers[number].self_attn
        assert isinstance(attention, Attention)
        keys, values = (tensor.flatten(-2) for tensor in memory)
        return Memory(attention.remember(keys).keys, attention.remember(values).values)

    def velocity(
        self, x_t: Float[Tensor, "B T A"], time: Float[Tensor, "B"], prefix: Prefix
    ) -> Float[Tensor, "B T A"]:
        """Return the velocity from actions (time 0) to noise (time 1) at a point between them."""
        actions = self.action_in_proj(x_t)
        instant = self._time_features(time).to(actions.dtype)[:, None].expand_as(actions)
        x = self.action_time_mlp_in(torch.cat([actions, instant], dim=-1))
        x = self.action_time_mlp_out(functional.silu(x))
        steps = torch.arange(x.shape[1], device=x.device)
        earlier = (steps[:, None] >= steps).expand(len(x), -1, -1)
        seen = prefix.valid[:, None]
        with_actions = torch.cat([seen.expand(-1, len(steps), -1), earlier], dim=-1)
        places = prefix.valid.sum(dim=1, keepdim=True) + steps
        for layer, joint, memory in zip(self.expert.layers, self._joint, prefix.memories, strict=True):
            assert isinstance(layer, Layer)
            normed, attention = layer.input_layernorm(x), layer.self_attn
            # Where the actions are alone with the prefix, their positions begin at 0.
            positions = places if joint else steps[None]
            queries = rotate(attention.queries(normed), positions)
            if joint:
                own = attention.remember(normed)
                memory = memory.followed_by(own._replace(keys=rotate(own.keys, positions)))
            x = layer(x, attention.attend(queries, memory, with_actions if joint else seen))
        return self.action_out_proj(self.expert.norm(x))

    def _time_features(self, time: Float[Tensor, "B"]) -> Float[Tensor, "B X"]:
        """Return sines, then cosines, of waves between `min_period` and `max_period`.

        In float64 where there is one: the fastest turns 1,570 rad, of which float32 knows four decimals.
        """
        exact = torch.float32 if time.device.type == "mps" else torch.float64
        low, high = self._settings.min_period, self._settings.max_period
        half = self.action_in_proj.out_features // 2
        share = torch.linspace(0, 1, half, dtype=exact, device=time.device)
        angle = 2 * math.pi * time[:, None].to(exact) / (low * (high / low) ** share)
        return torch.cat([angle.sin(), angle.cos()], dim=-1).float()

    def sample(self, noise: Float[Tensor, "B T A"], prefix: Prefix, num_steps: int) -> Float[Tensor, "B T A"]:
        """Follow the velocity from noise to actions, in equal steps of Euler's."""
        x_t = noise
        for step in range(num_steps):
            time = torch.full((len(noise),), 1 - step / num_steps, device=noise.device)
            x_t = x_t - self.velocity(x_t, time, prefix) / num_steps
        return x_t


def published_weights(network: SmolVLANetwork, files: SmolVLAFiles) -> dict[str, Tensor]:
    """Read a network's weights, in float32, by its own names.

    Raises:
        ConfigError: one is missing, or has another shape than `config.json` means.
    """
    names = {own: lerobot_name(own) for own in network.state_dict()}
    for own, due in network.state_dict().items():
        if tuple(due.shape) != (found := files.shape(names[own])):
            raise ConfigError(
                f"{files.name}: tensor '{names[own]}' is {list(found)}, where config.json means "
                f"{list(due.shape)}"
            )
    tensors = files.read(names.values())
    return {own: tensors[name] for own, name in names.items()}
