"""Action heads: a condition in, an action chunk out. `build_head` makes the one that is configured."""

from vla.policy.config import PolicyConfig
from vla.policy.heads.action_transformer import ActionTransformer
from vla.policy.heads.head import ActionHead
from vla.policy.heads.imf import ImfHead

__all__ = ["ActionHead", "ActionTransformer", "ImfHead", "build_head"]


def build_head(config: PolicyConfig, action_dim: int) -> ActionHead:
    """Build the action head that a configuration names."""
    network = ActionTransformer(
        action_dim=action_dim,
        cond_dim=config.cond_dim,
        obs_horizon=config.obs_horizon,
        pred_horizon=config.pred_horizon,
        n_emb=config.n_emb,
        n_layer=config.n_layer,
        n_head=config.n_head,
        residual=config.residual,
    )
    return ImfHead(network, cond_dim=config.cond_dim, config=config.imf)
