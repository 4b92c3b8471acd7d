"""The world `sim_transfer`: names and sizes of its task, its environment, its expert. Imports no MuJoCo."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import numpy as np

from vla.rollout.worlds.expert import Expert, ExpertTask

ENV_ID = "vla/SimTransfer-v0"
INSTRUCTION = "Pick the red box with the right arm and hand it over to the left arm."
CAMERAS = ("r_vis", "top", "front")
SHAPES = ("box", "cylinder")
"""Of what is handed over: `env.kwargs.shape`."""
CONTROL_HZ = 25
"""Actions a second."""
MAX_EPISODE_STEPS = 200
SOLVED = 4
"""The reward while the left hand holds the box in the air."""
SIDES = ("left", "right")
NUM_JOINTS = 7
STATE_NAMES = tuple(
    f"{side}_{part}.pos"
    for side in SIDES
    for part in (*(f"joint_{n + 1}" for n in range(NUM_JOINTS)), "gripper")
)
"""The 16 numbers of a state or an action: joint angles [rad], gripper openings [0 closed, 1 open]."""

gymnasium.register(
    id=ENV_ID,
    # A string: MuJoCo is imported when the first environment is made.
    entry_point="vla.rollout.worlds.sim_transfer.env:SimTransferEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
)


class SimTransferTask(ExpertTask):
    """Pick the red box with the right arm and hand it over to the left arm."""

    type: Literal["sim_transfer"] = "sim_transfer"
    env_id: str = ENV_ID
    instruction: str = INSTRUCTION
    robot_type: str = "dual_panda"
    control_hz: int = CONTROL_HZ
    num_steps: int = MAX_EPISODE_STEPS
    state_names: tuple[str, ...] = STATE_NAMES

    def environment(self) -> Callable[..., gymnasium.Env[Any, Any]]:
        """Return `SimTransferEnv`."""
        from vla.rollout.worlds.sim_transfer.env import SimTransferEnv

        return SimTransferEnv

    def make_expert(self, env: gymnasium.Env[Any, Any], rng: np.random.Generator, noise: float) -> Expert:
        """Return the scripted expert."""
        from vla.rollout.worlds.sim_transfer.env import SimTransferEnv
        from vla.rollout.worlds.sim_transfer.transfer_expert import TransferExpert

        assert isinstance(env, SimTransferEnv)
        return TransferExpert(env.physics, rng, noise)

    def is_solved(self, reward: float, info: Mapping[str, Any]) -> bool:
        """Tell whether the task was solved and the left hand still holds the box."""
        return bool(info["is_success"]) and reward == SOLVED

    def render_quality(self) -> dict[str, int]:
        """Return MuJoCo's `visual/quality` of the scene."""
        from vla.rollout.worlds.sim_transfer.scene import RENDER_QUALITY

        return dict(RENDER_QUALITY)
