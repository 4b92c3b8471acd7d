"""The batch that training sees.

    observation    {stream: [B, T_obs, *shape]}    of the stream's dtype, raw: uint8 images, float16 features
       state       float32 [B, T_obs, S]           in the robot's units
       task        float32 [B, T_obs, D]           frozen feature of the task text, where it is taken
    action         float32 [B, T, A]               in the robot's units
    action_is_pad  bool    [B, T]                  True beyond the episode

B windows, T_obs obs_horizon, T pred_horizon, S state size, A action size, D length of a text's feature.
Which instants these are is drawn in `vla.base.horizons`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jaxtyping import Bool, Float
from torch import Tensor

Draws = dict[str, Tensor]
"""Everything random about one batch's loss, a row each."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows of demonstrations, on the training device."""

    observation: dict[str, Tensor]
    action: Float[Tensor, "B T A"]
    action_is_pad: Bool[Tensor, "B T"]

    def tensors(self) -> Iterator[Tensor]:
        """Yield all of them, in no promised order."""
        yield from self.observation.values()
        yield from (self.action, self.action_is_pad)

    def held(self) -> "Batch":
        """Return the same windows, of which the actions past an episode's end are no padding.

        They repeat its last action: a policy learns to stay there. Those before its start stay padding.
        """
        # A window has its current frame, so padding before the start ends there at the latest.
        return replace(self, action_is_pad=self.action_is_pad.cumprod(dim=1).bool())

    def part(self, number: int, of: int) -> "Batch":
        """Return every `of`-th window from `number` on: an equal share of each kind of row."""
        if of == 1:
            return self
        return Batch(
            observation={name: tensor[number::of] for name, tensor in self.observation.items()},
            action=self.action[number::of],
            action_is_pad=self.action_is_pad[number::of],
        )
