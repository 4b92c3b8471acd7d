"""`vla export --lerobot` of a SmolVLA: a folder that LeRobot's own SmolVLAPolicy loads; nothing of vla in it.

config.json                 that of the SmolVLA it began with, with this robot's cameras, state and actions
model.safetensors           every weight: the frozen ones as they were, the trained ones in float32
policy_preprocessor.json    LeRobot's: newline, tokens, standardised state; its numbers in a file beside it
policy_postprocessor.json   LeRobot's: actions back to the robot's units; likewise

As LeRobot 0.6.1 writes them. Nothing here needs LeRobot.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from vla.base.errors import CheckpointError
from vla.base.files import write_atomically, write_json
from vla.policy.pretrained.smolvla import SmolVLA
from vla.policy.pretrained.smolvla_files import WEIGHTS, SmolVLAFiles, lerobot_name

EPSILON = 1e-8
NORMALISED = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
TO_CPU = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}


def write_smolvla_folder(policy: SmolVLA, out: Path, inputs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a trained SmolVLA for LeRobot's commands, and for whoever goes on training it there.

    Args:
        policy: trained.
        out: the folder to make.
        inputs: LeRobot's features of what it observes, by LeRobot's names; cameras in the policy's order.
    """
    horizons, settings = policy.horizons, policy.files.settings
    outputs = {"action": {"type": "ACTION", "shape": [policy.action_dim]}}
    statistics = _statistics(policy)
    features = {"features": {**inputs, **outputs}, "norm_map": NORMALISED, "eps": EPSILON}
    words = {
        "max_length": settings.tokenizer_max_length,
        "task_key": "task",
        "padding_side": "right",
        "padding": policy.files.table.get("pad_language_to", "longest"),
        "truncation": True,
        "tokenizer_name": settings.vlm_model_name,
    }
    before: list[dict[str, Any]] = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "smolvla_new_line_processor", "config": {}},
        {"registry_name": "tokenizer_processor", "config": words},
        TO_CPU,  # LeRobot's commands put their own device in its place
        {"registry_name": "normalizer_processor", "config": features},
    ]
    after: list[dict[str, Any]] = [
        {"registry_name": "unnormalizer_processor", "config": {**features, "features": outputs}},
        TO_CPU,
    ]
    for name, steps in {"policy_preprocessor": before, "policy_postprocessor": after}.items():
        for number, step in enumerate(steps):
            kind = step["registry_name"]
            if kind.endswith("normalizer_processor"):
                step["state_file"] = f"{name}_step_{number}_{kind}.safetensors"
                write_atomically(out / step["state_file"], save(statistics))
        write_json(out / f"{name}.json", {"name": name, "steps": steps})
    write_atomically(out / WEIGHTS, save(_weights(policy), metadata={"format": "pt"}))
    config = {
        **policy.files.table,
        "n_obs_steps": 1,
        "input_features": dict(inputs),
        "output_features": outputs,
        "normalization_mapping": NORMALISED,
        "empty_cameras": 0,
        "chunk_size": horizons.pred_horizon,
        "n_action_steps": horizons.num_action_steps,
        "num_steps": policy.default_num_steps,
    }
    write_json(out / "config.json", config)  # last: with it the folder is whole


def _statistics(policy: SmolVLA) -> dict[str, Tensor]:
    """Return LeRobot's statistics; an action that never moved is commanded to be what it was, as vla does."""
    state, action = policy.state_standardize, policy.action_standardize
    spread = torch.where(policy.action_moves, action.std, torch.zeros_like(action.std))
    named = {
        "observation.state.mean": state.mean,
        "observation.state.std": state.std,
        "action.mean": action.mean,
        "action.std": spread,
    }
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}


def _weights(policy: SmolVLA) -> dict[str, Tensor]:
    """Return every tensor by LeRobot's name."""
    trained = {
        lerobot_name(name): tensor.detach().cpu().contiguous()
        for name, tensor in policy.network.state_dict().items()
        if policy.is_saved(f"network.{name}")
    }
    files: SmolVLAFiles = policy.files
    with safe_open(files.folder / WEIGHTS, framework="pt") as file:
        # Files from before LeRobot had processors hold statistics too: not of this robot.
        names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118
        tensors = {name: trained.get(name, file.get_tensor(name)) for name in names}
    if lost := trained.keys() - tensors.keys():
        raise CheckpointError(f"{files.folder / WEIGHTS} lacks tensor '{min(lost)}'; download it again")
    return tensors
