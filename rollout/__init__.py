"""Simulation, demonstrations and live policies.

Importing this registers `vla/SimTransfer-v0` with Gymnasium.
"""

import gymnasium

from vla.rollout.task import ENV_ID, MAX_EPISODE_STEPS

gymnasium.register(
    id=ENV_ID,
    # A string: MuJoCo is imported when the first environment is made.
    entry_point="vla.rollout.sim_transfer:SimTransferEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
)
