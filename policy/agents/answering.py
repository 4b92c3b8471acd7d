"""Whose actions a policy answers with, where each cache's were standardised by their own statistics."""

from vla.base.errors import ConfigError
from vla.policy.agents.policy import Policy
from vla.policy.nn.normalize import Standardize


def answer_for(policy: Policy, cache: str) -> None:
    """Choose whose actions a policy answers with; until then it answers in standard units.

    One standard for all actions leaves nothing to choose.

    Args:
        policy: it is changed.
        cache: name of one that it was trained on; empty if nobody named one.

    Raises:
        ConfigError: there is no such choice, or there is one and none is named.
    """
    own = {made.cache: made.action for made in policy.config.data if made.action is not None}
    if not own:
        if cache:
            raise ConfigError(
                f"rollout.cache is '{cache:.80}', but all actions have one standard; leave it out"
            )
        return
    if cache not in own:
        named = f"is '{cache:.80}'" if cache else "is not chosen"
        raise ConfigError(
            f"the policy standardises the actions of each cache by itself, and rollout.cache {named}; "
            f"caches: {', '.join(own)}"
        )
    outer, inner = Standardize(policy.action_dim).to(policy.device), policy.action_standardize
    outer.fit(own[cache].mean, own[cache].std)
    inner.mean.copy_(outer.invert(inner.mean))
    inner.std.mul_(outer.std)
