"""A tiny SmolVLA, in the files of the published ones: LeRobot's folder, and the SmolVLM that it names."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast, SmolVLMConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMForConditionalGeneration

SIDE, TOKENS, HIDDEN, EXPERT = 32, 16, 48, 36
"""Edge of an image [pixel], its tokens, and the widths of the language model and of the expert."""
LAYERS, MAX_STATE, MAX_ACTION, CHUNK = 4, 8, 6, 5
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 4,
}
TEXT = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS + 1,  # SmolVLA leaves the upper layers out
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 40,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
}
WORDS = ("<pad>", "<unk>", "\n", "pick", "up", "the", "red", "box", "hand", "it", "over", ".")
SPECIAL = {
    "fake_image_token": "<fake_token_around_image>",
    "image_token": "<image>",
    "end_of_utterance_token": "<end_of_utterance>",
    "global_image_token": "<global-img>",
}


def write_smolvlm(
    folder: Path,
    vision: Mapping[str, Any] = VISION,
    text: Mapping[str, Any] = TEXT,
    scale_factor: int = 2,
) -> Path:
    """Write what LeRobot reads of a SmolVLM: sizes, tokeniser, processor; weights are the policy's."""
    folder.mkdir(parents=True, exist_ok=True)
    config = SmolVLMConfig(
        vision_config=dict(vision), text_config=dict(text), scale_factor=scale_factor, image_token_id=12
    )
    config.save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate((*WORDS, *SPECIAL.values()))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Punctuation(),
        ]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=SPECIAL,
    ).save_pretrained(folder)
    for name, table in {
        "preprocessor_config": {"image_processor_type": "SmolVLMImageProcessor"},
        "processor_config": {"processor_class": "SmolVLMProcessor", "image_seq_len": TOKENS},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(table))
    return folder


def lerobot_config(vlm: Path, cameras: Sequence[str], **changes: Any) -> dict[str, Any]:
    """Return the settings that LeRobot writes, as far as SmolVLA looks at them."""
    image = {"type": "VISUAL", "shape": [3, SIDE, SIDE]}
    return {
        "type": "smolvla",
        "n_obs_steps": 1,
        "input_features": {
            "observation.state": {"type": "STATE", "shape": [3]},
            **{f"observation.images.{camera}": image for camera in cameras},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [4]}},
        "device": "cpu",
        "chunk_size": CHUNK,
        "n_action_steps": CHUNK,
        "max_state_dim": MAX_STATE,
        "max_action_dim": MAX_ACTION,
        "resize_imgs_with_padding": [SIDE, SIDE],
        "tokenizer_max_length": 10,
        "num_steps": 3,
        "vlm_model_name": str(vlm),
        "load_vlm_weights": False,
        "num_vlm_layers": LAYERS,
        "self_attn_every_n_layers": 2,
        "expert_width_multiplier": 0.75,
        **changes,
    }


def write_smolvla(
    root: Path, cameras: Sequence[str] = ("top", "wrist"), seed: int = 0, **changes: Any
) -> Path:
    """Write a folder that LeRobot's `SmolVLAPolicy.from_pretrained` takes, with random weights.

    Args:
        root: gets two folders, `vlm` and `smolvla`.
        cameras: of its config.json.
        seed: of the weights.
        changes: to its settings.

    Returns:
        The folder `smolvla`.
    """
    folder = root / "smolvla"
    folder.mkdir(parents=True)
    config = lerobot_config(write_smolvlm(root / "vlm"), cameras, **changes)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(random_weights(seed), folder / "model.safetensors")
    return folder


def random_weights(seed: int) -> dict[str, torch.Tensor]:
    """Return tensors under LeRobot's names, of transformers' own modules; norms are not all one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vlm = SmolVLMForConditionalGeneration(
            SmolVLMConfig(vision_config=VISION, text_config=TEXT, scale_factor=2, tie_word_embeddings=False)
        )
        vlm.model.text_model.layers = vlm.model.text_model.layers[:LAYERS]
        sizes = {**TEXT, "hidden_size": EXPERT, "intermediate_size": 256, "num_hidden_layers": LAYERS}
        expert = LlamaModel(LlamaConfig(**{key: sizes[key] for key in sizes if key != "model_type"}))
        for layer in list(expert.layers)[1::2]:  # they read the language model's keys and values, 16 wide
            layer.self_attn.k_proj = torch.nn.Linear(16, 16, bias=False)
            layer.self_attn.v_proj = torch.nn.Linear(16, 16, bias=False)
        maps = {
            "state_proj": (MAX_STATE, HIDDEN),
            "action_in_proj": (MAX_ACTION, EXPERT),
            "action_out_proj": (EXPERT, MAX_ACTION),
            "action_time_mlp_in": (2 * EXPERT, EXPERT),
            "action_time_mlp_out": (EXPERT, EXPERT),
        }
        weights = {f"model.vlm_with_expert.vlm.{name}": t for name, t in vlm.state_dict().items()}
        weights |= {
            f"model.vlm_with_expert.lm_expert.{name}": tensor
            for name, tensor in expert.state_dict().items()
            if not name.startswith("embed_tokens")
        }
        for name, (width, out) in maps.items():
            for part, tensor in torch.nn.Linear(width, out).state_dict().items():
                weights[f"model.{name}.{part}"] = tensor
        for name, tensor in weights.items():
            # Weights as transformers draws them, 0.02, leave every attention even: larger ones tell mistakes.
            spread = 0.3 if tensor.ndim > 1 else 0.1
            center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weights[name] = (center + spread * torch.randn_like(tensor)).contiguous()
    return weights
