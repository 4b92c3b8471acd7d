"""Save a training run so that it can be continued exactly.

No pickle anywhere: tensors are safetensors, the rest is JSON. Random state is not stored, because every
step draws from generators that are functions of (seed, step); see `vla.policy.random`. What a policy does
not save is in no checkpoint, and what is frozen has no optimiser state.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from vla.base.distributed import World
from vla.base.errors import CheckpointError
from vla.base.files import sync_folder, write_atomically, write_json
from vla.policy.actions.demonstrations import Demonstrations
from vla.policy.agents.policy import Policy, load_policy
from vla.policy.mixture import AnyCache, AnyMetadata
from vla.policy.policy_config import PolicyConfig
from vla.policy.saved_policy import WEIGHTS_FILE, read_tensors
from vla.policy.training.checksums import checksum_problem, write_checksums
from vla.policy.training.meter import Meter
from vla.policy.training.optimizer import MovingAverage, build_optimizer, trained_parameters
from vla.policy.training.run import POLICY_FOLDER, STATE_FOLDER, RunDirectory
from vla.policy.training.train_config import TrainConfig

RAW_WEIGHTS_FILE = "model_raw.safetensors"
STEP_FILE, OPTIMIZER_FILE, FIGURES_FILE = (
    "training_step.json",
    "optimizer_state.safetensors",
    "figures.safetensors",
)
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""What AdamW keeps of each parameter."""


@dataclass
class TrainingState:
    """Everything that changes while training."""

    policy: Policy
    ema: MovingAverage
    optimizer: torch.optim.Optimizer
    meter: Meter
    """Figures since the last log line."""
    step: int = 0
    """Updates done."""

    @property
    def ema_policy(self) -> Policy:
        """The policy with averaged weights: validated and deployed."""
        averaged = self.ema.module
        assert isinstance(averaged, Policy)
        return averaged


def initial_state(
    config: PolicyConfig,
    train: TrainConfig,
    cache: AnyCache,
    metadata: AnyMetadata,
    device: torch.device,
    world: World,
) -> TrainingState:
    """Return the state before the first step; the same weights on every device and in every process.

    Args:
        config: what the policy is.
        train: the run.
        cache: what it is trained on.
        metadata: what that says of itself, with the statistics to normalise by.
        device: where it is trained.
        world: the processes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed)  # weights are drawn on the CPU: the same on every device
        texts = cache.text_features() if config.takes_text_features else None
        shown = Demonstrations(cache, train.val_episodes, config.horizons)
        policy = Policy.for_cache(config, metadata, texts, shown)
    policy = policy.to(device)
    ema, optimizer = MovingAverage(policy, train.ema_decay), build_optimizer(policy, train)
    return TrainingState(policy, ema, optimizer, Meter(train.batch_size, world))


def save_checkpoint(run: RunDirectory, state: TrainingState) -> None:
    """Write the checkpoint of the current step; it appears under its name complete or not at all."""
    final = run.checkpoint(state.step)
    if final.exists():
        return  # a resumed run stands where it was saved
    temporary = final.with_name(f".{final.name}.tmp")
    state.ema_policy.save_pretrained(temporary / POLICY_FOLDER)
    write_atomically(temporary / POLICY_FOLDER / RAW_WEIGHTS_FILE, save(state.policy.saved_state()))
    moved = optimizer_tensors(state.policy, state.optimizer)
    write_atomically(temporary / STATE_FOLDER / OPTIMIZER_FILE, save(moved))
    write_atomically(temporary / STATE_FOLDER / FIGURES_FILE, save(state.meter.state()))
    write_json(temporary / STATE_FOLDER / STEP_FILE, {"step": state.step})
    write_checksums(temporary)
    temporary.rename(final)
    sync_folder(final.parent)
    run.link("last", state.step)


def load_checkpoint(run: RunDirectory, step: int, state: TrainingState) -> None:
    """Put a checkpoint's weights, moving average and optimiser state into freshly built ones.

    Raises:
        CheckpointError: the checkpoint is damaged or does not fit the configuration.
    """
    folder = run.checkpoint(step)
    if wrong := checksum_problem(folder):
        raise CheckpointError(
            f"{wrong}; remove the checkpoint, and --resume goes on from the one before: "
            f"rm -r {shlex.quote(str(folder))}"
        )
    policy = folder / POLICY_FOLDER
    try:
        state.policy.load_saved(read_tensors(policy, policy / RAW_WEIGHTS_FILE))
        state.ema_policy.load_saved(read_tensors(policy, policy / WEIGHTS_FILE))
        tensors = read_tensors(policy, folder / STATE_FOLDER / OPTIMIZER_FILE)
        state.meter.restore(load_file(folder / STATE_FOLDER / FIGURES_FILE), state.policy.device)
        state.step = read_step(folder)
        for name, parameter in trained_parameters(state.policy).items():
            state.optimizer.state[parameter] = moments(tensors, name, parameter, state.step)
    except (OSError, SafetensorError, RuntimeError, ValueError, CheckpointError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{folder} cannot be continued from: {reason}") from error
    state.ema.updates = state.step


def read_step(checkpoint: Path) -> int:
    """Return the number of updates that a checkpoint stands at.

    Raises:
        OSError, ValueError: the file is missing, or does not say.
    """
    path = checkpoint / STATE_FOLDER / STEP_FILE
    try:
        found = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path} is no JSON") from error
    step = found.get("step") if isinstance(found, dict) else None
    if type(step) is not int or step < 0:
        raise ValueError(f"{path} has no number 'step'")
    return step


def moments(
    tensors: Mapping[str, torch.Tensor], name: str, parameter: torch.Tensor, step: int
) -> dict[str, torch.Tensor]:
    """Return one parameter's part of the optimiser state; before the first step there is none."""
    prefix = f"{name}/"
    found = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
    if found.keys() != (MOMENTS if step else set()):
        raise ValueError(f"the optimiser state of '{name}' is {sorted(found) or 'missing'}")
    for key, tensor in found.items():
        if tensor.shape != (torch.Size() if key == "step" else parameter.shape):
            raise ValueError(f"the optimiser state '{prefix}{key}' has shape {list(tensor.shape)}")
    return {key: tensor.to(parameter.device) for key, tensor in found.items()}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimiser's state of what is trained, as `parameter/key`; `moments` takes it apart again."""
    return {
        f"{name}/{key}": value
        for name, parameter in trained_parameters(model).items()
        for key, value in optimizer.state[parameter].items()
    }


def load_trained(folder: Path, weights: str) -> Policy:
    """Load the averaged ("ema") or the plain ("raw") weights of a policy folder."""
    return load_policy(folder, weights_file(folder, weights).name)


def weights_file(folder: Path, weights: str) -> Path:
    """Return where the averaged ("ema") or the plain ("raw") weights of a policy folder are."""
    return folder / {"ema": WEIGHTS_FILE, "raw": RAW_WEIGHTS_FILE}[weights]
