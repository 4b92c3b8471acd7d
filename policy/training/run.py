"""The run directory: what a training run leaves behind, in LeRobot's layout.

<run>/pipeline.toml                         the resolved configuration
<run>/metrics.jsonl                         one JSON object a log step
<run>/tensorboard/                          the same figures
<run>/checkpoints/010000/pretrained_model/  config.json, model.safetensors (moving average of the
                                            weights: what is deployed), model_raw.safetensors
<run>/checkpoints/010000/training_state/    optimiser and step, to continue exactly
<run>/checkpoints/last -> 010000, best -> the one that `train.best` judges to be it
<run>/eval/step_010000/                     validation rollouts
"""

import shlex
import shutil
from pathlib import Path

from vla.base.errors import CheckpointError
from vla.base.files import cannot_write, remove_leftovers

CONFIG_FILE = "pipeline.toml"
POLICY_FOLDER, STATE_FOLDER = "pretrained_model", "training_state"
INSIDE_LEROBOT = "vla"
"""Where the policy is in a folder for LeRobot, whose own `config.json` lies beside it."""


class RunDirectory:
    """Paths of one run.

    Args:
        path: the run directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        return self.path / CONFIG_FILE

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def checkpoint(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.path / "checkpoints" / f"{step:06d}"

    def evaluation(self, step: int) -> Path:
        """Return the folder of a step's validation rollouts."""
        return self.path / "eval" / f"step_{step:06d}"

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """Start a new run.

        Raises:
            CheckpointError: something lies there already, or the place cannot be written.
        """
        # A process that was killed at once may have left nothing, or half of its configuration.
        if path.is_file() or (path.is_dir() and any(path.glob("[!.]*"))):
            raise CheckpointError(
                f"run directory {path} exists; continue it with --resume, or choose another --out"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(cannot_write(path, error)) from error
        remove_leftovers(path)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Open an existing run.

        Raises:
            CheckpointError: there is none.
        """
        run = cls(path)
        if not run.config.is_file():
            raise CheckpointError(
                f"no run at {path} (it has no {CONFIG_FILE}); train one: {_train_command(path)}"
            )
        return run

    def last_step(self) -> int | None:
        """Return the step of the last whole checkpoint, or None before the first."""
        steps = [int(p.name) for p in (self.path / "checkpoints").glob("[0-9]*") if p.name.isdigit()]
        return max(steps, default=None)

    def policy_folder(self, name: str | None = None) -> Path:
        """Return the `pretrained_model` folder of a checkpoint.

        Args:
            name: "best", "last" or a step; None takes best if anything was measured, else last.
                The last one is the newest, wherever the link leads: its checkpoint may have been removed
                as damaged, or training killed before it was set.

        Raises:
            CheckpointError: there is no such checkpoint; the message lists those there are.
        """
        folder = self.path / "checkpoints"
        if name is None:
            name = "best" if (folder / "best").exists() else "last"
        step = self.last_step() if name == "last" else int(name) if name.isdigit() else None
        chosen = folder / name if step is None else self.checkpoint(step)
        if not (chosen / POLICY_FOLDER).is_dir():
            there = ", ".join(sorted(p.name for p in folder.glob("[!.]*") if p.exists())) or "none yet"
            raise CheckpointError(f"{self.path} has no checkpoint '{name}'; checkpoints: {there}")
        return chosen.resolve() / POLICY_FOLDER

    def best_step(self) -> int | None:
        """Return the step that `best` leads to; None where there is none."""
        link = self.path / "checkpoints" / "best"
        return int(link.readlink().name) if link.is_symlink() and link.exists() else None

    def link(self, name: str, step: int) -> None:
        """Point `checkpoints/<name>` at a step's checkpoint, atomically."""
        link = self.path / "checkpoints" / name
        temporary = link.with_name(f".{name}.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(f"{step:06d}")
        temporary.replace(link)

    def remove(self, step: int) -> None:
        """Delete a checkpoint; it is gone at once, whatever comes in between."""
        folder = self.checkpoint(step)
        doomed = folder.with_name(f".{folder.name}.tmp")
        folder.rename(doomed)
        shutil.rmtree(doomed)

    def remove_leftovers(self) -> None:
        """Delete half-written files and checkpoints of a killed process."""
        remove_leftovers(self.path)
        for path in (self.path / "checkpoints").glob(".*.tmp"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def find_policy(path: Path, checkpoint: str | None = None) -> Path:
    """Return the folder of `config.json` and weights that a path means.

    Args:
        path: a run directory, a checkpoint, a `pretrained_model` folder itself, or one for LeRobot.
        checkpoint: which one of a run; see `RunDirectory.policy_folder`.

    Raises:
        CheckpointError: there is no policy at the path.
    """
    # A shared policy has its run's settings beside its own config.json; a run has no config.json.
    if (path / CONFIG_FILE).is_file() and not (path / "config.json").is_file():
        return RunDirectory(path).policy_folder(checkpoint)
    for folder in (path / INSIDE_LEROBOT, path, path / POLICY_FOLDER):
        if (folder / "config.json").is_file():
            return folder
    raise CheckpointError(f"no run and no policy at {path}; train one: {_train_command(path)}")


def find_run(policy: Path) -> Path | None:
    """Return the run directory that a policy folder lies in, or None if it stands alone.

    A configuration three levels up is not enough: a project that keeps policies in models/me/a has one too.
    """
    folder = policy.resolve()
    run = folder.parent.parent.parent
    in_run = folder.name == POLICY_FOLDER and folder.parent.parent.name == "checkpoints"
    return run if in_run and (run / CONFIG_FILE).is_file() else None


def _train_command(out: Path) -> str:
    return f"vla train --out {shlex.quote(str(out))}"
