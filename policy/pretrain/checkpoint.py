"""Save pretraining so that it can be continued exactly, and so that `vla embed --encoder` takes it.

<run>/config.json                        what the encoder looks at
<run>/checkpoints/001000/config.json     the same
<run>/checkpoints/001000/model.safetensors   encoder, projector, predictor, …, named as LeWorldModel's
<run>/checkpoints/001000/training_state/     optimiser, figures since the last line, step
"""

import shlex
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from vla.base.errors import CheckpointError
from vla.base.files import sync_folder, write_atomically, write_json
from vla.base.lewm import LewmInput
from vla.base.vit_names import load_named, named_tensors
from vla.policy.pretrain.world_model import WorldModel
from vla.policy.training.checkpoint import (
    FIGURES_FILE,
    OPTIMIZER_FILE,
    STEP_FILE,
    moments,
    optimizer_tensors,
    read_step,
)
from vla.policy.training.checksums import checksum_problem, write_checksums
from vla.policy.training.meter import Meter
from vla.policy.training.optimizer import trained_parameters
from vla.policy.training.run import STATE_FOLDER, RunDirectory

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
KEPT = 2
"""Newest checkpoints; there is no best one, because no loss says which features are."""


@dataclass
class PretrainState:
    """Everything that changes."""

    model: WorldModel
    optimizer: torch.optim.Optimizer
    meter: Meter
    step: int = 0


def save_checkpoint(run: RunDirectory, state: PretrainState, looks_at: LewmInput) -> None:
    """Write the checkpoint of the current step, complete or not at all, and remove old ones."""
    final = run.checkpoint(state.step)
    if final.exists():
        return
    temporary = final.with_name(f".{final.name}.tmp")
    described = looks_at.model_dump(mode="json")
    # Tensors of a safetensors file may not share memory, and lie in the host's.
    tensors = {name: tensor.cpu().contiguous() for name, tensor in named_tensors(state.model).items()}
    write_atomically(temporary / WEIGHTS_FILE, save(tensors))
    write_json(temporary / CONFIG_FILE, described)
    training = temporary / STATE_FOLDER
    write_atomically(training / OPTIMIZER_FILE, save(optimizer_tensors(state.model, state.optimizer)))
    write_atomically(training / FIGURES_FILE, save(state.meter.state()))
    write_json(training / STEP_FILE, {"step": state.step})
    write_checksums(temporary)
    temporary.rename(final)
    sync_folder(final.parent)
    run.link("last", state.step)
    write_json(run.path / CONFIG_FILE, described)
    steps = sorted(int(path.name) for path in final.parent.glob("[0-9]*"))
    for old in steps[:-KEPT]:
        run.remove(old)


def load_checkpoint(run: RunDirectory, step: int, state: PretrainState, device: torch.device) -> None:
    """Put a checkpoint into a freshly built state.

    Raises:
        CheckpointError: it is damaged, or does not fit the configuration.
    """
    folder = run.checkpoint(step)
    if wrong := checksum_problem(folder):
        raise CheckpointError(
            f"{wrong}; remove the checkpoint, and --resume goes on from the one before: "
            f"rm -r {shlex.quote(str(folder))}"
        )
    try:
        load_named(state.model, load_file(folder / WEIGHTS_FILE))
        tensors = load_file(folder / STATE_FOLDER / OPTIMIZER_FILE)
        state.meter.restore(load_file(folder / STATE_FOLDER / FIGURES_FILE), device)
        state.step = read_step(folder)
        for name, parameter in trained_parameters(state.model).items():
            state.optimizer.state[parameter] = moments(tensors, name, parameter, state.step)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise CheckpointError(f"{folder} cannot be continued from: {reason}") from error
