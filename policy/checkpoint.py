"""Save a training run so that it can be continued exactly.

No pickle anywhere: tensors are safetensors, the rest is JSON. Random state is not stored, because every
step draws from streams that are functions of (seed, step); see `vla.policy.sampling`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch.optim.swa_utils import AveragedModel

from vla.errors import CheckpointError
from vla.files import sync_folder, write_atomically, write_json
from vla.policy.agent import VLAAgent
from vla.policy.run import POLICY_FOLDER, STATE_FOLDER, RunDirectory

RAW_WEIGHTS_FILE = "model_raw.safetensors"


@dataclass
class TrainingState:
    """Everything that changes while training."""

    agent: VLAAgent
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Updates done."""

    @property
    def ema_agent(self) -> VLAAgent:
        """The agent with averaged weights: validated and deployed."""
        averaged = self.ema.module
        assert isinstance(averaged, VLAAgent)
        return averaged


def save_checkpoint(run: RunDirectory, state: TrainingState) -> None:
    """Write the checkpoint of the current step; it appears under its name complete or not at all."""
    final = run.checkpoint(state.step)
    if final.exists():
        return  # a resumed run stands where it was saved
    temporary = final.with_name(f".{final.name}.tmp")
    state.ema_agent.save_pretrained(temporary / POLICY_FOLDER)
    write_atomically(temporary / POLICY_FOLDER / RAW_WEIGHTS_FILE, save(state.agent.state_dict()))
    write_atomically(
        temporary / STATE_FOLDER / "optimizer_state.safetensors", save(_optimizer_tensors(state))
    )
    write_json(temporary / STATE_FOLDER / "training_step.json", {"step": state.step})
    temporary.rename(final)
    sync_folder(final.parent)
    run.link("last", state.step)


def load_checkpoint(run: RunDirectory, step: int, state: TrainingState) -> None:
    """Put a checkpoint's weights, moving average and optimiser state into freshly built ones.

    Raises:
        CheckpointError: the checkpoint is damaged or does not fit the configuration.
    """
    folder = run.checkpoint(step)
    try:
        state.agent.load_state_dict(load_file(folder / POLICY_FOLDER / RAW_WEIGHTS_FILE))
        state.ema_agent.load_state_dict(load_file(folder / POLICY_FOLDER / "model.safetensors"))
        tensors = load_file(folder / STATE_FOLDER / "optimizer_state.safetensors")
        saved_step = json.loads((folder / STATE_FOLDER / "training_step.json").read_bytes())["step"]
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{folder} cannot be continued from: {reason}") from error
    for name, parameter in state.agent.named_parameters():
        prefix = f"{name}/"
        state.optimizer.state[parameter] = {
            key.removeprefix(prefix): _placed(tensor, key, parameter)
            for key, tensor in tensors.items()
            if key.startswith(prefix)
        }
    state.ema.n_averaged.fill_(saved_step)
    state.step = saved_step


def _placed(tensor: torch.Tensor, key: str, parameter: torch.Tensor) -> torch.Tensor:
    """Put moments where the parameter is; AdamW keeps its step counters on the CPU."""
    return tensor if key.endswith("/step") else tensor.to(parameter.device)


def _optimizer_tensors(state: TrainingState) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in state.agent.named_parameters()
        for key, value in state.optimizer.state[parameter].items()
    }


def load_agent(folder: Path, weights: str) -> VLAAgent:
    """Load the averaged ("ema") or the plain ("raw") weights of a policy folder."""
    files = {"ema": "model.safetensors", "raw": RAW_WEIGHTS_FILE}
    return VLAAgent.from_pretrained(folder, files[weights])
