"""What LeRobot's `config.json` of a SmolVLA says, and what of it vla cannot do."""

from collections.abc import Mapping
from typing import Literal

from vla.base.errors import ConfigError
from vla.base.strict import Depth, Positive, StrictModel, Width

VLM_EXAMPLE = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"


class SmolVLASettings(StrictModel):
    """What vla heeds of LeRobot's `config.json`, under LeRobot's names and with its defaults (0.6.1)."""

    type: Literal["smolvla"]
    n_obs_steps: int = 1
    chunk_size: Depth = 50
    max_state_dim: Width = 32
    max_action_dim: Width = 32
    resize_imgs_with_padding: tuple[Width, Width] | None = (512, 512)
    """(width, height) [pixel]."""
    tokenizer_max_length: Width = 48
    num_steps: Depth = 10
    train_expert_only: bool = True
    train_state_proj: bool = True
    vlm_model_name: str = VLM_EXAMPLE
    attention_mode: str = "cross_attn"
    num_expert_layers: int = -1
    num_vlm_layers: int = 16
    self_attn_every_n_layers: int = 2
    min_period: Positive = 4e-3
    max_period: Positive = 4.0
    add_image_special_tokens: bool = False
    adapt_to_pi_aloha: bool = False

    def reads_along(self, layer: int) -> bool:
        """Tell whether a layer of the expert attends to the actions too, not to the language model alone."""
        every = self.self_attn_every_n_layers
        return "cross" not in self.attention_mode or (every > 0 and layer % every == 0)


def require_known(name: str, settings: SmolVLASettings) -> None:
    """Refuse what would not be the policy that LeRobot runs.

    Raises:
        ConfigError: a setting asks for it.
    """
    refused: Mapping[str, tuple[bool, str]] = {
        "train_expert_only = false": (
            not settings.train_expert_only,
            "then the connector and the language model are trained, and nothing of them can be cached; train "
            "it with LeRobot, or set it to true",
        ),
        f"n_obs_steps = {settings.n_obs_steps}": (settings.n_obs_steps != 1, "SmolVLA looks at one instant"),
        f"num_expert_layers = {settings.num_expert_layers}": (
            settings.num_expert_layers > 0 and settings.num_expert_layers != settings.num_vlm_layers,
            "the expert must have a layer for each of the language model's",
        ),
        "add_image_special_tokens = true": (
            settings.add_image_special_tokens,
            "vla puts no tokens around images",
        ),
        "adapt_to_pi_aloha = true": (settings.adapt_to_pi_aloha, "vla does not convert ALOHA's joints"),
        "resize_imgs_with_padding = null": (
            settings.resize_imgs_with_padding is None,
            "vla needs one size for all cameras",
        ),
    }
    for key, (is_so, why) in refused.items():
        if is_so:
            raise ConfigError(f"{name}: config.json has {key}: {why}")
