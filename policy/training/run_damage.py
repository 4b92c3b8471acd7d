"""Check a run: its configuration, its figures, and every checkpoint's bytes, shapes and values."""

import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vla.base.errors import CheckpointError
from vla.base.progress import Progress
from vla.policy.saved_policy import CONFIG_FILE, WEIGHTS_FILE, read_config, require_shapes
from vla.policy.training.checkpoint import OPTIMIZER_FILE, RAW_WEIGHTS_FILE, read_step
from vla.policy.training.checksums import checksum_problem, read_checksums
from vla.policy.training.run import POLICY_FOLDER, STATE_FOLDER, RunDirectory
from vla.policy.training.run_log import torn_lines


def run_problems(path: Path) -> list[str]:
    """List what is wrong with a run, a line a problem with what to run next.

    Raises:
        CheckpointError: there is no run.
    """
    run = RunDirectory.open(path)
    problems = []
    try:
        tomllib.loads(run.config.read_text())
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{run.config} is no TOML ({str(error)[:200]}); --resume needs it")
    if (torn := torn_lines(run)) > 0:
        problems.append(f"{run.metrics} has {torn} lines that are no figures; --resume drops them")
    folders = sorted(folder for folder in (path / "checkpoints").glob("[0-9]*") if folder.name.isdigit())
    with Progress("verify", len(folders), unit="checkpoints") as progress:
        for folder in folders:
            advice = f"remove it, and --resume goes on from the one before: rm -r {shlex.quote(str(folder))}"
            problems += [f"{what}; {advice}" for what in checkpoint_problems(folder)]
            progress.update()
    for name in ("last", "best"):
        link = path / "checkpoints" / name
        if link.is_symlink() and not link.exists():
            remove = f"remove the link: rm {shlex.quote(str(link))}"
            problems.append(f"{link} leads to a checkpoint that is gone; {remove}")
    return problems


def checkpoint_problems(folder: Path) -> Iterator[str]:
    """Say what is wrong with a checkpoint."""
    if wrong := checksum_problem(folder):
        yield wrong
        return
    if not read_checksums(folder):
        yield f"{folder} has no checksums.json, so its bytes cannot be held against anything"
    policy = folder / POLICY_FOLDER
    if (folder / CONFIG_FILE).is_file():  # of `vla pretrain`, which is no policy: its bytes are as written
        return
    try:
        if read_step(folder) != int(folder.name):
            yield f"{folder} says that it is step {read_step(folder)}"
        config = read_config(policy)
        for name in (WEIGHTS_FILE, RAW_WEIGHTS_FILE):
            require_shapes(config, policy / name)
        for path in (
            policy / WEIGHTS_FILE,
            policy / RAW_WEIGHTS_FILE,
            folder / STATE_FOLDER / OPTIMIZER_FILE,
        ):
            for name, tensor in load_file(path).items():
                if not torch.isfinite(tensor).all():
                    yield f"{path} has a value in '{name}' that is not finite"
                    break
    except CheckpointError as error:
        yield str(error)
    except (OSError, ValueError, SafetensorError) as error:
        yield f"{folder} cannot be read ({str(error).splitlines()[0][:200]})"
