"""Train robot manipulation policies on cached features of a frozen vision encoder.

    vla record   expert demonstrations in MuJoCo     -> a LeRobotDataset v3.0 directory
    vla embed    every frame, once, frozen encoder   -> a feature cache
    vla train    projectors + action head            -> a run directory
    vla rollout  the policy live, in simulation      -> eval_info.json and videos

Importing `vla` is cheap: the rooms (`vla.cache`, `vla.embed`, `vla.policy`, `vla.rollout`) import
torch and mujoco only when they are imported themselves.
"""

__version__ = "0.1.0"
