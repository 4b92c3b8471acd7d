"""Action heads: a condition in, an action chunk out. `build_head` makes the one that is configured.

    imf    improved MeanFlow: average velocities, one step        imf.py
    flow   flow matching, N Euler steps                           flow.py
    ddpm   noise prediction, N DDIM steps                         ddpm.py
    mlp    deterministic regression                               mlp.py

The first three share one network, `ActionTransformer`, on Attention Residuals or plain ones.
"""

from vla.policy.heads.ddpm import DdpmHead
from vla.policy.heads.flow import FlowHead
from vla.policy.heads.head import ActionHead
from vla.policy.heads.imf import ImfHead
from vla.policy.heads.mlp import MlpHead
from vla.policy.nn.action_transformer import ActionTransformer
from vla.policy.policy_config import PolicyConfig

__all__ = ["ActionHead", "ActionTransformer", "DdpmHead", "FlowHead", "ImfHead", "MlpHead", "build_head"]


def build_head(config: PolicyConfig, action_dim: int) -> ActionHead:
    """Build the action head that a configuration names."""
    if config.head == "mlp":
        return MlpHead(config, action_dim)
    if config.head == "flow":
        network = ActionTransformer(config, action_dim, num_times=1, num_outputs=1)
        return FlowHead(network, cond_dim=config.cond_dim)
    if config.head == "ddpm":
        network = ActionTransformer(config, action_dim, num_times=1, num_outputs=1)
        return DdpmHead(network, action_dim=action_dim, cond_dim=config.cond_dim, config=config.ddpm)
    network = ActionTransformer(config, action_dim, num_times=2, num_outputs=2)
    return ImfHead(network, cond_dim=config.cond_dim, config=config.imf)
