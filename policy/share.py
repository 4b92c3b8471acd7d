"""A policy as others get it: weights, configuration and a model card in one folder, as the Hub wants it.

config.json        what the policy is, and which encoder it needs
model.safetensors  the moving average of its weights
pipeline.toml      the settings of its run, without output folders and device
README.md          the model card
"""

import json
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from vla.errors import CheckpointError
from vla.files import write_atomically
from vla.policy.agent import WEIGHTS_FILE, VLAAgent
from vla.policy.card import Evaluation, model_card
from vla.policy.run import CONFIG_FILE, find_run

MACHINE_KEYS = {"cache": ("path",), "record": ("out", "workers"), "train": ("out", "device")}
"""Where things lay on the machine that trained; nobody else's business."""


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
    agent = VLAAgent.from_pretrained(policy)  # nothing that cannot be loaded is handed on
    evaluations = evaluations_of(policy, tables)
    agent.save_pretrained(out)
    shutil.copyfile(policy / WEIGHTS_FILE, out / WEIGHTS_FILE)  # the very bytes, whatever wrote them
    if tables:
        kept = {
            table: {key: value for key, value in rows.items() if key not in MACHINE_KEYS.get(table, ())}
            for table, rows in tables.items()
        }
        write_atomically(out / CONFIG_FILE, tomli_w.dumps(kept).encode())
    card = model_card(name, agent.config, evaluations, has_settings=bool(tables))
    write_atomically(out / "README.md", card.encode())
    return evaluations


def evaluations_of(policy: Path, tables: Mapping[str, Any]) -> list[Evaluation]:
    """Collect the evaluations of one checkpoint from its run: `vla rollout`'s, else those of training."""
    run = find_run(policy)
    if run is None:
        return []
    step = policy.resolve().parent.name
    folders = sorted((run / "eval").glob(f"rollout_{step}_*")) or [run / "eval" / f"step_{step}"]
    default = tables.get("env", {}).get("id", "unknown")
    found = []
    for folder in folders:
        if (folder / "eval_info.json").is_file():
            info = json.loads((folder / "eval_info.json").read_bytes())
            found.append(Evaluation(env=_env_of(folder) or default, info=info))
    return found


def _env_of(folder: Path) -> str | None:
    path = folder / CONFIG_FILE
    return tomllib.loads(path.read_text()).get("env", {}).get("id") if path.is_file() else None
