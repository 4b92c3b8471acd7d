"""A policy as others get it: weights, configuration and a model card in one folder, as the Hub wants it.

config.json        what the policy is, and which encoder it needs
model.safetensors  the moving average of its weights
pipeline.toml      the settings of its run, without output folders and what its machine could do
encoders/          trunks of a run that are its encoder, if they are
README.md          the model card
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from vla.base.errors import CheckpointError
from vla.base.files import write_atomically
from vla.base.kept_encoder import keep_encoder, kept_encoder
from vla.policy.agents.policy import load_policy
from vla.policy.saved_policy import WEIGHTS_FILE, is_of_today
from vla.policy.sharing.card import Evaluation, model_card
from vla.policy.sharing.evaluations import evaluations_of
from vla.policy.training.run import CONFIG_FILE, find_run

NOT_SHARED = {
    "cache": ("path",),
    "record": ("out", "workers"),
    "encoder": ("device", "workers", "batch_size"),
    "train": ("out", "device", "caches"),
    "rollout": ("weights",),
}
"""Where things lay on the machine that trained, what it could do, and weights that are not in the folder."""


def share(
    policy: Path, out: Path, tables: Mapping[str, Any], *, name: str, evaluations: Sequence[Path] = ()
) -> list[Evaluation]:
    """Write a policy folder for others.

    Args:
        policy: the folder of `config.json` and weights.
        out: the folder to make.
        tables: the settings of its run; empty if it stands alone.
        name: what the card calls the policy.
        evaluations: folders of evaluations that lie elsewhere than below the run.

    Returns:
        The evaluations that the card shows.

    Raises:
        CheckpointError: the policy cannot be loaded, or not on another machine; something lies at `out`, or
            a named evaluation is no result of this policy; see `vla.policy.sharing.evaluations`.
    """
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise CheckpointError(f"{out} exists and is not empty; choose another --out")
    loaded = load_policy(policy)  # nothing that cannot be loaded is handed on
    if loaded.share_problem:
        raise CheckpointError(f"{policy}: {loaded.share_problem}")
    results = evaluations_of(policy, tables, loaded.default_num_steps, evaluations)
    loaded.save_pretrained(out)
    if is_of_today(policy):
        shutil.copyfile(policy / WEIGHTS_FILE, out / WEIGHTS_FILE)  # the very bytes, whatever wrote them
    keep_encoder(kept_encoder(policy, find_run(policy)), out)
    if tables:
        kept = {
            table: {key: value for key, value in rows.items() if key not in NOT_SHARED.get(table, ())}
            for table, rows in tables.items()
        }
        write_atomically(out / CONFIG_FILE, tomli_w.dumps(kept).encode())
    card = model_card(name, loaded.config, results, has_settings=bool(tables))
    write_atomically(out / "README.md", card.encode())
    return results
