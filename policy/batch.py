"""The batch that training sees.

    features       {camera: float16 [B, T_obs, tokens, dim]}   frozen features
    state          float32 [B, T_obs, S]                       in the robot's units
    action         float32 [B, T, A]                           in the robot's units
    action_is_pad  bool    [B, T]                              True beyond the episode
    language       float32 [B, D], or None                     frozen feature of the episode's task text

B windows, T_obs obs_horizon, T pred_horizon, S state size, A action size, D length of a text's feature. The
first action belongs to the first observation; the current observation is the last one:

    observations    o-1  o0
    actions         a-1  a0  a1 … a14        T = 16
    executed             a0  a1 … a7         num_action_steps = 8
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Bool, Float, Float16
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows of demonstrations, on the training device."""

    features: dict[str, Float16[Tensor, "B T_obs tokens dim"]]
    state: Float[Tensor, "B T_obs S"]
    action: Float[Tensor, "B T A"]
    action_is_pad: Bool[Tensor, "B T"]
    language: Float[Tensor, "B D"] | None = None
    """Only of policies that take it."""

    def tensors(self) -> Iterator[Tensor]:
        """Yield all of them, in no promised order."""
        yield from self.features.values()
        yield from (self.state, self.action, self.action_is_pad)
        if self.language is not None:
            yield self.language
