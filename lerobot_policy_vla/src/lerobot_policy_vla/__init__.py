"""Policies that vla trained, for LeRobot's own commands.

LeRobot imports this package when one of its commands starts, because of its name. That makes known

    --policy.path=DIR          DIR from `vla export RUN --lerobot DIR`; the type of such a policy is `vla`
    --env.type=sim_transfer    vla's simulated task, to try a policy without a robot

LeRobot finds the policy of a configuration in `configuration_vla` by name too, in `modeling_vla`, and its
processors in `processor_vla`.
"""

from lerobot_policy_vla.configuration_vla import VlaConfig
from lerobot_policy_vla.sim_transfer import SimTransferConfig

__all__ = ["SimTransferConfig", "VlaConfig"]
