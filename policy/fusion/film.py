"""A fusion in which the task text says what counts: it scales and shifts each number of what is seen.

    streams ─ concat, linear ─> features ─┐
    task ─ linear ─> scale, shift ────────┴─ features * (1 + scale) + shift ┐
    state ──────────────────────────────────────────────────────────────────┼─ concat, linear ─> condition
    task ───────────────────────────────────────────────────────────────────┘

Feature-wise linear modulation (Perez et al., arXiv 1709.07871, equation 2). Where the named one of several
objects is, is a product of where they are and which is named; side by side, the head would have to learn it.

B batch, T_obs obs_horizon, S state size, L width of the projected text, C condition width.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.base.errors import ConfigError
from vla.base.strict import Width
from vla.policy.fusion.fusion import Fusion, FusionConfig, FusionSizes


class FilmConfig(FusionConfig):
    """Features of the streams, modulated by the task text."""

    type: Literal["film"] = "film"
    width: Width = 128
    """Numbers that are modulated."""

    def build(self, sizes: FusionSizes) -> "FilmFusion":
        return FilmFusion(sizes, self.width)


class FilmFusion(Fusion):
    """Modulate what is seen by what is asked.

    Args:
        sizes: what comes in and goes out.
        width: numbers that are modulated.

    Raises:
        ConfigError: there is no task text.
    """

    def __init__(self, sizes: FusionSizes, width: int) -> None:
        super().__init__()
        if not sizes.task_dim:
            raise ConfigError(
                "policy.fusion = film is modulated by the task text, and the policy takes none; add "
                "--set policy.language=true, or take policy.fusion = concat"
            )
        self._names = tuple(sizes.tokens)
        seen = sum(count * dim for count, dim in sizes.tokens.values())
        self.features = nn.Linear(seen, width)
        self.modulation = nn.Linear(sizes.task_dim, 2 * width)
        self.cond_projector = nn.Linear(width + sizes.state_dim + sizes.task_dim, sizes.cond_dim)

    def forward(
        self,
        tokens: Mapping[str, Float[Tensor, "B T_obs _N _D"]],
        state: Float[Tensor, "B T_obs S"] | None,
        task: Float[Tensor, "B T_obs L"] | None,
    ) -> Float[Tensor, "B T_obs C"]:
        assert task is not None  # the agent sees to it
        features = self.features(torch.cat([tokens[name].flatten(-2) for name in self._names], dim=-1))
        scale, shift = self.modulation(task).chunk(2, dim=-1)
        parts = [features * (1 + scale) + shift, *([] if state is None else [state]), task]
        # The state is among them: in bfloat16 it would be known to 0.4 % of a standard deviation.
        dtype = self.cond_projector.weight.dtype
        with torch.autocast(task.device.type, enabled=False):
            return self.cond_projector(torch.cat([part.to(dtype) for part in parts], dim=-1))
