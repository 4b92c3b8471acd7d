"""`vla-tests/Count-v0` as an environment of LeRobot's.

    lerobot-eval --env.discover_packages_path=fake_task --env.type=count

Each reward is the mean of an action: a sum of them tells whether all actions of an episode were the same.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
from fake_env import ENV_ID
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

CAMERAS = ("r_vis", "top", "front")


@EnvConfig.register_subclass("count")
@dataclass
class CountConfig(EnvConfig):
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(FeatureType.ACTION, (16,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (16,)),
            **{camera: PolicyFeature(FeatureType.VISUAL, (32, 32, 3)) for camera in CAMERAS},
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            **{camera: f"observation.images.{camera}" for camera in CAMERAS},
        }
    )

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {"render_mode": "rgb_array"}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, Any]:
        make = partial(gymnasium.make, ENV_ID, **self.gym_kwargs)
        return {"count": {0: SyncVectorEnv([make] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP)}}
