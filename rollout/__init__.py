"""Simulation, demonstrations and live policies.

Importing this registers `vla/SimTransfer-v0` with Gymnasium, and ALOHA's tasks, which need `gym-aloha`.
"""

import gymnasium

from vla.rollout.worlds.sim_transfer.task import ENV_ID, MAX_EPISODE_STEPS

gymnasium.register(
    id=ENV_ID,
    # A string: MuJoCo is imported when the first environment is made.
    entry_point="vla.rollout.worlds.sim_transfer.env:SimTransferEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
)

for _task, _name in (("transfer_cube", "TransferCube"), ("insertion", "Insertion")):
    gymnasium.register(
        id=f"vla/Aloha{_name}-v0",
        entry_point="vla.rollout.worlds.aloha.aloha_env:AlohaEnv",
        kwargs={"task": _task},
        max_episode_steps=300,  # as gym-aloha has it
    )
