"""`vla export --lerobot`: a policy as a folder that LeRobot's commands take as `--policy.path`.

config.json                 LeRobot's: the type `vla`, and what the policy observes under LeRobot's names
policy_preprocessor.json    LeRobot's: rename observations, add the batch axis, move to the device
policy_postprocessor.json   LeRobot's: actions back to the CPU
vla/                        the policy, as `vla share` writes it

A SmolVLA has no such folder: LeRobot's own class loads it, see `vla.rollout.export.smolvla_folder`.

Nothing here needs LeRobot. Whoever drives the policy has LeRobot and the package `lerobot_policy_vla`.
LeRobot's processors normalise nothing: the statistics are inside the policy.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla.base.errors import CheckpointError
from vla.base.files import write_json
from vla.base.progress import say
from vla.cache.stream import ACTION, STATE, Stream
from vla.policy.pretrained.smolvla import SmolVLA
from vla.policy.saved_policy import SavedPolicy, read_config
from vla.policy.sharing.share import share
from vla.policy.training.run import INSIDE_LEROBOT
from vla.rollout.export.smolvla_folder import write_smolvla_folder
from vla.rollout.robot_streams import robot_streams
from vla.rollout.rollout_config import RolloutConfig

OBSERVATION, IMAGES = "observation.", "observation.images."
RENAME = {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}}
ADD_BATCH_AXIS = {"registry_name": "to_batch_processor", "config": {}}
# LeRobot's commands put their own device in place of this one.
MOVE = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
PROCESSORS = {"policy_preprocessor": [RENAME, ADD_BATCH_AXIS, MOVE], "policy_postprocessor": [MOVE]}


def write_lerobot_folder(
    policy: Path, out: Path, tables: Mapping[str, Any], rollout: RolloutConfig, *, name: str
) -> dict[str, str]:
    """Write a policy for LeRobot's commands.

    Args:
        policy: the folder of `config.json` and weights.
        out: the folder to make.
        tables: the settings of its run; empty if it stands alone.
        rollout: its sampling steps and its task are LeRobot's defaults for this policy.
        name: what the model card calls the policy.

    Returns:
        LeRobot's name of each stream that the policy observes.

    Raises:
        CheckpointError: the policy cannot be loaded, or something lies at `out`.
    """
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise CheckpointError(f"{out} exists and is not empty; choose another --lerobot")
    saved = read_config(policy)
    observes = robot_streams(saved.streams, saved.encoders)
    names = {stream.name: lerobot_name(stream, saved) for stream in observes}
    features = {names[stream.name]: _feature(stream, names, saved) for stream in observes}
    if saved.policy.type == "smolvla":  # LeRobot has it, and needs nothing of vla to run it
        write_smolvla_folder(SmolVLA.from_pretrained(policy), out, features)
        return names
    share(policy, out / INSIDE_LEROBOT, tables, name=name)
    for processor, steps in PROCESSORS.items():
        write_json(out / f"{processor}.json", {"name": processor, "steps": steps})
    config = {
        "type": "vla",
        "n_obs_steps": saved.policy.horizons.obs_horizon,
        "input_features": features,
        "output_features": {ACTION: {"type": "ACTION", "shape": list(saved.action.shape)}},
        "streams": names,
        "num_steps": rollout.num_steps,
        "task": rollout.task,
    }
    write_json(out / "config.json", config)  # last: with it the folder is whole
    return names


def lerobot_name(stream: Stream, saved: SavedPolicy) -> str:
    """Return what LeRobot calls a stream: what it was in demonstrations of LeRobot's, else by its rules."""
    stored = (made.dataset.keys.get(stream.name, "") for made in saved.data)
    if known := next((key for key in stored if key.startswith(OBSERVATION)), ""):
        return known
    return f"{IMAGES if stream.kind == 'image' else OBSERVATION}{stream.name}"


def _feature(stream: Stream, names: Mapping[str, str], saved: SavedPolicy) -> dict[str, Any]:
    if stream.kind != "image":
        return {"type": "STATE" if stream.name == STATE else "ENV", "shape": list(stream.shape)}
    size = _recorded_size(names[stream.name], saved)
    if size is None:
        size = _encoded_size(stream, saved)
        say(
            f"the size of camera '{stream.name}' is not known, because the demonstrations are not here; "
            f"config.json says {size[0]} x {size[1]}, to which LeRobot's policy server will resize its images"
        )
    return {"type": "VISUAL", "shape": [3, *size]}


def _recorded_size(key: str, saved: SavedPolicy) -> tuple[int, int] | None:
    """Return (height, width) [pixel] of a camera in the demonstrations; None if they are not at hand."""
    for made in saved.data:
        try:
            info = json.loads((Path(made.dataset.path) / "meta/info.json").read_bytes())
            height, width, _ = info["features"][key]["shape"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return int(height), int(width)
    return None


def _encoded_size(stream: Stream, saved: SavedPolicy) -> tuple[int, int]:
    """Return (height, width) [pixel] that the encoder resizes a camera to."""
    sizes = [identity.settings.get("image_size") for identity in saved.encoders.values()]
    match next((size for size in sizes if size), None):
        case [int(height), int(width)]:
            return height, width
    raise CheckpointError(
        f"the size of camera '{stream.name}' is not known; export where the demonstrations are: "
        f"{', '.join(made.dataset.path for made in saved.data) or 'nobody noted where'}"
    )
