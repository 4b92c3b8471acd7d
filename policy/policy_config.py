"""The table `[policy]`: what any policy is asked, and what those with an action head say of it.

The table's `type` names the policy; see `vla.policy.agents`. Nothing here imports torch.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from vla.base.family import Family
from vla.base.horizons import Horizons
from vla.base.strict import Depth, StrictModel, Width

if TYPE_CHECKING:
    from vla.policy.agents.policy import Policy
    from vla.policy.saved_policy import SavedPolicy


class PolicyConfig(StrictModel):
    """What every policy is asked: how much it sees, predicts and executes."""

    type: str
    streams: tuple[str, ...] = ()
    """Streams that the policy sees, by name; none named sees all that the cache has."""
    obs_horizon: Depth = 2
    """Observations that the policy sees, the newest one included."""
    pred_horizon: Depth = 16
    """Predicted actions, from the first of these observations on."""
    num_action_steps: Depth = 8
    """Actions executed of each predicted chunk, from the current observation on."""
    normalization: Literal["mean_std", "quantile", "min_max"] = "mean_std"
    """Of state and actions: by mean and standard deviation, or to [-1, 1] by 1 % quantiles or the range."""

    @model_validator(mode="after")
    def _horizons_fit(self) -> "PolicyConfig":
        _ = self.horizons
        return self

    @property
    def horizons(self) -> Horizons:
        return Horizons(
            obs_horizon=self.obs_horizon,
            pred_horizon=self.pred_horizon,
            num_action_steps=self.num_action_steps,
        )

    @property
    def takes_task(self) -> bool:
        """Whether the policy is told what to do, in words."""
        return False

    @property
    def takes_text_features(self) -> bool:
        """Whether it is told so by features of a text tower; a policy that reads the words itself is not."""
        return self.takes_task

    def settled(self) -> "PolicyConfig":
        """Return the settings with what had to be looked up elsewhere, so that a saved policy is whole."""
        return self

    @abstractmethod
    def build(self, saved: "SavedPolicy") -> "Policy":
        """Build the policy, untrained, with the identity for every normalisation.

        Args:
            saved: all that is known of it; its `policy` is this configuration.

        Raises:
            ConfigError: a setting does not fit the streams.
        """


POLICIES: Family[PolicyConfig] = Family(
    "policy", PolicyConfig, "vla.policy.agents", "vla.policy.pretrained", default="agent"
)


class HeadedConfig(PolicyConfig):
    """A policy that builds a condition of each observation, and turns it into actions by a head."""

    cond_dim: Width = 384
    """Width of the condition of one observation step, `head.cond_dim`."""
    residual: Literal["attnres", "plain"] = "attnres"
    """Attention Residuals (arXiv 2603.15031), or the ordinary residual stream."""
    residual_block: Annotated[int, Field(ge=1, le=8)] = 1
    """Sublayers whose outputs Attention Residuals read as one sum: 1 is the full variant, more cost less."""
    n_emb: Width = 384
    """Width of the head's transformer."""
    n_layer: Depth = 12
    """Its blocks, an attention and an MLP each."""
    n_head: Depth = 8
    """Its attention heads."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "HeadedConfig":
        if self.n_emb % (2 * self.n_head):
            raise ValueError(f"n_emb {self.n_emb} must be a multiple of 2 * n_head = {2 * self.n_head}")
        if self.residual_block > 1 and self.residual != "attnres":
            raise ValueError(
                f"residual_block {self.residual_block} is for Attention Residuals, and residual is "
                f"{self.residual}; leave it out, or take residual = attnres"
            )
        return self


def policy_config(**settings: Any) -> PolicyConfig:
    """Return the configuration that a table `[policy]` with these keys is.

    Raises:
        ValueError: a key or a value is not valid.
    """
    return POLICIES.parse(settings)
