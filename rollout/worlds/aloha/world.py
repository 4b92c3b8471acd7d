"""ALOHA's simulated tasks: names and sizes, environments, the expert of the transfer cube.

`vla/AlohaTransferCube-v0` and `vla/AlohaInsertion-v0` need the package `gym-aloha`; this file does not.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import numpy as np

from vla.rollout.worlds.expert import Expert, ExpertTask

CAMERAS = ("top", "angle", "left_pillar", "right_pillar", "front_close", "left_wrist", "right_wrist")
"""All that the scene has. `angle` looks from the front, pillars stand left and right of the table."""
DEFAULT_CAMERAS = ("top", "angle", "left_pillar")
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
SIDES = ("left", "right")
STATE_NAMES = tuple(f"{side}_{part}.pos" for side in SIDES for part in (*JOINTS, "gripper"))
CONTROL_HZ = 50
MAX_EPISODE_STEPS = 300
"""As `gym-aloha` has it."""
SOLVED = 4
"""The reward while the left hand holds the cube in the air."""

for _task, _name in (("transfer_cube", "TransferCube"), ("insertion", "Insertion")):
    gymnasium.register(
        id=f"vla/Aloha{_name}-v0",
        entry_point="vla.rollout.worlds.aloha.aloha_env:AlohaEnv",
        kwargs={"task": _task},
        max_episode_steps=MAX_EPISODE_STEPS,
    )


class AlohaTransferCubeTask(ExpertTask):
    """Pick up the cube with the right arm and transfer it to the left arm."""

    type: Literal["aloha_transfer_cube"] = "aloha_transfer_cube"
    env_id: str = "vla/AlohaTransferCube-v0"
    env_kwargs: dict[str, Any] = {"task": "transfer_cube"}  # noqa: RUF012  pydantic copies it
    instruction: str = "Pick up the cube with the right arm and transfer it to the left arm."
    robot_type: str = "aloha"
    control_hz: int = CONTROL_HZ
    num_steps: int = MAX_EPISODE_STEPS
    state_names: tuple[str, ...] = STATE_NAMES

    def environment(self) -> Callable[..., gymnasium.Env[Any, Any]]:
        """Return `AlohaEnv`."""
        from vla.rollout.worlds.aloha.aloha_env import AlohaEnv

        return AlohaEnv

    def make_expert(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator, noise: float) -> Expert:
        """Return the scripted expert."""
        from vla.rollout.worlds.aloha.aloha_env import AlohaEnv
        from vla.rollout.worlds.aloha.aloha_expert import AlohaTransferExpert

        assert isinstance(env, AlohaEnv)
        return AlohaTransferExpert(env.physics, rng, noise)

    def is_solved(self, reward: float, info: Mapping[str, Any]) -> bool:
        """Tell whether the task was solved and the left hand still holds the cube."""
        return bool(info["is_success"]) and reward == SOLVED
