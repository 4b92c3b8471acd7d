"""OpenVLA after its vision towers: projector and language model (arXiv 2406.09246, figure 2).

    <s> │ patches, projected │ In: What action should the robot take to …?\nOut:▁ │ action tokens

One sequence: each token sees those before it, and the next one is read off the last. Shorter prompts are
padded between patches and words, where padding takes no position, so that the first action always follows
the last word.

B batch, N patches, V width of a patch, L tokens of a prompt, K action tokens, H width of the model, W words.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from vla.base.errors import ConfigError
from vla.base.openvla import LANGUAGE, PROJECTOR, OpenVLAFiles


class Projector(nn.Module):
    """Fused patches to the width of the language model; three layers, the first four times as wide."""

    def __init__(self, vision_dim: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_dim, 4 * vision_dim)
        self.fc2 = nn.Linear(4 * vision_dim, width)
        self.fc3 = nn.Linear(width, width)

    def forward(self, patches: Float[Tensor, "B N V"]) -> Float[Tensor, "B N H"]:
        hidden = functional.gelu(self.fc1(patches.to(self.fc1.weight.dtype)))
        return self.fc3(functional.gelu(self.fc2(hidden)))


class OpenVLANetwork(nn.Module):
    """Projector, Llama 2 by transformers' own class, and its output layer.

    Args:
        text_config: of the checkpoint's config.json.
        vision_dim: V.

    Raises:
        ConfigError: the language model is no Llama.
    """

    def __init__(self, text_config: dict[str, Any], vision_dim: int) -> None:
        from transformers import LlamaConfig, LlamaModel

        super().__init__()
        kind = text_config.get("model_type", "llama")
        if kind != "llama":
            raise ConfigError(f"text_config.model_type is {kind}; vla computes OpenVLA with a Llama alone")
        config = LlamaConfig(**{key: value for key, value in text_config.items() if key != "model_type"})
        self.projector = Projector(vision_dim, config.hidden_size)
        self.model: Any = LlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._bos = int(config.bos_token_id)

    def logits(
        self, patches: Float[Tensor, "B N V"], prompt: Int64[Tensor, "B L"], actions: Int64[Tensor, "B K"]
    ) -> Float[Tensor, "B K W"]:
        """Return what is expected of each action token, given those before it.

        Args:
            patches: of one image a row.
            prompt: token ids without <s>; -1 past the end of a shorter one.
            actions: token ids.
        """
        before, known = self._before(patches, prompt)
        words = self._words(actions[:, :-1])
        known = torch.cat([known, known.new_ones(words.shape[:2])], dim=1)
        hidden = self.model(
            inputs_embeds=torch.cat([before, words], dim=1),
            attention_mask=known.long(),
            position_ids=_positions(known),
            use_cache=False,
        ).last_hidden_state
        return self.lm_head(hidden[:, -actions.shape[1] :])

    @torch.no_grad()
    def generate(
        self, patches: Float[Tensor, "B N V"], prompt: Int64[Tensor, "B L"], count: int, tokens: range
    ) -> Int64[Tensor, "B K"]:
        """Return the likeliest tokens, one after the other.

        Args:
            patches: of one image a row.
            prompt: token ids without <s>; -1 past the end of a shorter one.
            count: K.
            tokens: those that may come: actions. OpenVLA's own code looks at all words, and takes any that is
                no action for the largest number.
        """
        after, known = self._before(patches, prompt)
        positions, kept = _positions(known), None
        drawn: list[Tensor] = []
        allowed = slice(tokens.start, tokens.stop)
        for _ in range(count):
            found = self.model(
                inputs_embeds=after,
                attention_mask=known.long(),
                position_ids=positions,
                past_key_values=kept,
                use_cache=True,
            )
            kept = found.past_key_values
            of_actions = functional.linear(found.last_hidden_state[:, -1:], self.lm_head.weight[allowed])
            drawn.append(of_actions.argmax(dim=-1) + tokens.start)
            after, positions = self._words(drawn[-1]), positions[:, -1:] + 1
            known = torch.cat([known, known.new_ones(len(known), 1)], dim=1)
        return torch.cat(drawn, dim=1)

    def _before(
        self, patches: Float[Tensor, "B N V"], prompt: Int64[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B S H"], Bool[Tensor, "B S"]]:
        """Return the sequence up to the first action, and which of it is no padding."""
        order = (prompt >= 0).int().argsort(dim=1, stable=True)  # padding first, words in their order
        ids = prompt.gather(1, order)
        seen = self.projector(patches)
        start = self._words(ids.new_full((len(ids), 1), self._bos))
        known = torch.cat([ids.new_ones(len(ids), 1 + seen.shape[1]), ids >= 0], dim=1).bool()
        return torch.cat([start, seen.to(start.dtype), self._words(ids.clamp(min=0))], dim=1), known

    def _words(self, ids: Int64[Tensor, "B _"]) -> Shaped[Tensor, "B _ H"]:
        found: Tensor = self.model.embed_tokens(ids)
        return found


def _positions(known: Bool[Tensor, "B S"]) -> Int64[Tensor, "B S"]:
    return known.long().cumsum(dim=1).sub(1).clamp(min=0)


def load_network(files: OpenVLAFiles, dtype: torch.dtype) -> OpenVLANetwork:
    """Build the network with a checkpoint's weights; on torch's device `meta` only its shapes.

    Args:
        files: of the checkpoint.
        dtype: of the weights.

    Raises:
        ConfigError: a tensor is missing, is too many, or has another shape than config.json says.
    """
    # transformers' from_pretrained knows no OpenVLA; nor may 14 GB be in memory twice.
    is_meta = torch.get_default_device().type == "meta"
    (_, vision_dim) = files.shape(f"{PROJECTOR}fc1.weight")
    with torch.device("meta"):
        network = OpenVLANetwork(files.settings.text_config, vision_dim)
    network.to(dtype)
    if is_meta:
        return network
    tensors = {own_name(name): tensor for name, tensor in files.read(files.language(), dtype).items()}
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        said = " ".join(str(error).split("\n\t")[1:])[:300]
        raise ConfigError(f"{files.name} does not fit its config.json: {said}") from None
    # What is computed and in no file would stay on the device `meta`.
    network.model.rotary_emb = type(network.model.rotary_emb)(network.model.config)
    return network


def own_name(name: str) -> str:
    """Return what the network calls a tensor of the files."""
    return name.removeprefix(LANGUAGE)
