"""Recognise a trained policy where an encoder is asked for: its trunks are meant."""

import json
from pathlib import Path

MAX_CONFIG_BYTES = 1 << 22


def holds_policy(folder: Path) -> bool:
    """Tell whether a folder is a run, a checkpoint or a policy, without loading any of it."""
    if (folder / "checkpoints").is_dir() or (folder / "pretrained_model").is_dir():
        return True
    path = folder / "config.json"
    try:
        if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
            return False
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and {"policy", "streams"} <= config.keys()
