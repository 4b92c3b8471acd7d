"""The usual fusion: everything side by side, and one linear map.

    stream 1 ┐
    stream 2 ┤
    state    ┼─ concat ─> cond_projector ─> condition
    task     ┘

B batch, T_obs obs_horizon, S state size, L width of the projected text, C condition width.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.policy.fusion.fusion import Fusion, FusionConfig, FusionSizes


class ConcatConfig(FusionConfig):
    """Concatenation; it has no settings of its own."""

    type: Literal["concat"] = "concat"

    def build(self, sizes: FusionSizes) -> "ConcatFusion":
        return ConcatFusion(sizes)


class ConcatFusion(Fusion):
    """Concatenate the streams' tokens in order, the state and the task text, and map them linearly.

    Args:
        sizes: what comes in and goes out.
    """

    def __init__(self, sizes: FusionSizes) -> None:
        super().__init__()
        self._names = tuple(sizes.tokens)
        self.cond_projector = nn.Linear(sizes.raw_dim, sizes.cond_dim)

    def forward(
        self,
        tokens: Mapping[str, Float[Tensor, "B T_obs _N _D"]],
        state: Float[Tensor, "B T_obs S"] | None,
        task: Float[Tensor, "B T_obs L"] | None,
    ) -> Float[Tensor, "B T_obs C"]:
        parts = [tokens[name].flatten(-2) for name in self._names]
        parts += [part for part in (state, task) if part is not None]
        # The state is among them: in bfloat16 it would be known to 0.4 % of a standard deviation.
        dtype = self.cond_projector.weight.dtype
        with torch.autocast(parts[0].device.type, enabled=False):
            return self.cond_projector(torch.cat([part.to(dtype) for part in parts], dim=-1))
