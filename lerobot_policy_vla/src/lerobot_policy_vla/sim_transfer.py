"""vla's simulated task for `lerobot-eval --env.type=sim_transfer`: to try a policy without a robot."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from vla.rollout.worlds.sim_transfer.world import CAMERAS, CONTROL_HZ, ENV_ID, INSTRUCTION, STATE_NAMES


class SimTransfer(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The task with what LeRobot asks an environment; keeps actions within limits, as `vla rollout` does.

    Args:
        height: of the images [pixel].
        width: likewise.
    """

    task = task_description = INSTRUCTION

    def __init__(self, height: int, width: int) -> None:
        super().__init__(
            gymnasium.make(ENV_ID, render_height=height, render_width=width, render_mode="rgb_array")
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; LeRobot's options are for wrappers of its own."""
        return self.env.reset(seed=seed)

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Command the arms for 40 ms."""
        assert isinstance(self.action_space, gymnasium.spaces.Box)
        return self.env.step(np.clip(action, self.action_space.low, self.action_space.high))


@EnvConfig.register_subclass("sim_transfer")
@dataclass
class SimTransferConfig(EnvConfig):
    """`vla/SimTransfer-v0`: the right arm picks a box, the left arm takes it."""

    task: str = ENV_ID
    fps: int = CONTROL_HZ
    observation_height: int = 256
    observation_width: int = 256
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = (self.observation_height, self.observation_width, 3)
        vector = (len(STATE_NAMES),)
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, vector),
            "agent_pos": PolicyFeature(FeatureType.STATE, vector),
            **{f"pixels/{camera}": PolicyFeature(FeatureType.VISUAL, size) for camera in CAMERAS},
        }
        cameras = {f"pixels/{camera}": f"{OBS_IMAGES}.{camera}" for camera in CAMERAS}
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE, **cameras}

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Return what the environment is made with."""
        return {"height": self.observation_height, "width": self.observation_width}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """Make environments that are stepped together, in processes of their own if asked.

        Args:
            n_envs: how many.
            use_async_envs: whether each has its process.
        """
        makers = [partial(SimTransfer, **self.gym_kwargs)] * n_envs
        together = AutoresetMode.SAME_STEP
        if use_async_envs and n_envs > 1:
            return {self.type: {0: AsyncVectorEnv(makers, context="spawn", autoreset_mode=together)}}
        return {self.type: {0: SyncVectorEnv(makers, autoreset_mode=together)}}
