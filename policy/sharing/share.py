"""A policy as others get it: weights, configuration and a model card in one folder, as the Hub wants it.

config.json        what the policy is, and which encoder it needs
model.safetensors  the moving average of its weights
pipeline.toml      the settings of its run, without output folders and what its machine could do
README.md          the model card
"""

import json
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from vla.base.errors import CheckpointError
from vla.base.files import write_atomically
from vla.policy.agents.policy import load_policy
from vla.policy.saved_policy import WEIGHTS_FILE, is_of_today
from vla.policy.sharing.card import Evaluation, model_card
from vla.policy.training.run import CONFIG_FILE, find_run

NOT_SHARED = {
    "cache": ("path",),
    "record": ("out", "workers"),
    "encoder": ("device", "workers", "batch_size"),
    "train": ("out", "device", "caches"),
    "rollout": ("weights",),
}
"""Where things lay on the machine that trained, what it could do, and weights that are not in the folder."""


def share(policy: Path, out: Path, tables: Mapping[str, Any], *, name: str) -> list[Evaluation]:
    """Write a policy folder for others.

    Args:
        policy: the folder of `config.json` and weights.
        out: the folder to make.
        tables: the settings of its run; empty if it stands alone.
        name: what the card calls the policy.

    Returns:
        The evaluations that the card shows.

    Raises:
        CheckpointError: the policy cannot be loaded, or something lies at `out`.
    """
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise CheckpointError(f"{out} exists and is not empty; choose another --out")
    loaded = load_policy(policy)  # nothing that cannot be loaded is handed on
    evaluations = evaluations_of(policy, tables, loaded.default_num_steps)
    loaded.save_pretrained(out)
    if is_of_today(policy):
        shutil.copyfile(policy / WEIGHTS_FILE, out / WEIGHTS_FILE)  # the very bytes, whatever wrote them
    if tables:
        kept = {
            table: {key: value for key, value in rows.items() if key not in NOT_SHARED.get(table, ())}
            for table, rows in tables.items()
        }
        write_atomically(out / CONFIG_FILE, tomli_w.dumps(kept).encode())
    card = model_card(name, loaded.config, evaluations, has_settings=bool(tables))
    write_atomically(out / "README.md", card.encode())
    return evaluations


def evaluations_of(policy: Path, tables: Mapping[str, Any], head_steps: int) -> list[Evaluation]:
    """Collect the evaluations of one checkpoint from its run: `vla rollout`'s, else those of training.

    Args:
        policy: the folder of `config.json` and weights.
        tables: the settings of its run.
        head_steps: sampling steps that the action head takes where nothing else is asked.
    """
    run = find_run(policy)
    if run is None:
        return []
    step = policy.resolve().parent.name
    rolled_out = [_read(folder, tables, head_steps) for folder in sorted(run.glob(f"eval/rollout_{step}_*"))]
    found = [one for one in rolled_out if one is not None]
    if not found and (trained := _read(run / "eval" / f"step_{step}", tables, head_steps)) is not None:
        found = [trained]
    return found


def _read(folder: Path, tables: Mapping[str, Any], head_steps: int) -> Evaluation | None:
    """Read one evaluation; None if there is none, or if it is of the raw weights, which are not shared."""
    if not (folder / "eval_info.json").is_file():
        return None
    path = folder / CONFIG_FILE  # validation rollouts have none: they are driven with the run's own settings
    saved = tomllib.loads(path.read_text()) if path.is_file() else {}
    if saved.get("rollout", {}).get("weights") == "raw":
        return None
    steps, own_steps = (
        source.get("rollout", {}).get("num_steps") or head_steps for source in (saved or tables, tables)
    )
    return Evaluation(
        env={**tables.get("env", {}), **saved.get("env", {})}.get("id", "unknown"),
        info=json.loads((folder / "eval_info.json").read_bytes()),
        num_steps=None if steps == own_steps == head_steps else steps,
    )
