"""A fusion in which the task text points: it says where to look, and the policy sees that and nothing else.

    text ─ linear ─> P queries ─┐
    grid of tokens ─ keys ──────┴─ softmax over the grid ─> P places, and what is there ┐
    single tokens ──────────────────────────────────────────────────────────────────────┼─ linear
    state ──────────────────────────────────────────────────────────────────────────────┘

Attention with a query made of the text (Vaswani et al., arXiv 1706.03762, equation 1); its values are also
the positions, as in a spatial softmax. The text goes no other way: where each scene of the demonstrations
came with one text, a fusion that gave the head scene and text side by side learned scenes by heart.

B batch, T_obs obs_horizon, S state size, L width of the projected text, C condition width, P points.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.base.errors import ConfigError
from vla.base.strict import Width
from vla.policy.fusion.fusion import Fusion, FusionConfig, FusionSizes

VALUE_DIM = 8
"""Numbers that each point brings along of what is there."""


class PointConfig(FusionConfig):
    """Places in grids of tokens, chosen by the task text."""

    type: Literal["point"] = "point"
    points: Width = 8
    """Places that the text points at in each grid."""
    key_dim: Width = 32
    """Width of queries and keys."""

    def build(self, sizes: FusionSizes) -> "PointFusion":
        return PointFusion(sizes, self.points, self.key_dim)


class PointFusion(Fusion):
    """Look where the text says.

    Args:
        sizes: what comes in and goes out; a stream of N > 1 tokens is a square grid, row by row.
        points: P.
        key_dim: width of queries and keys.

    Raises:
        ConfigError: there is no task text, or no stream is a grid.
    """

    def __init__(self, sizes: FusionSizes, points: int, key_dim: int) -> None:
        super().__init__()
        if not sizes.task_dim:
            raise ConfigError(
                "policy.fusion = point is steered by the task text, and the policy takes none; add "
                "--set policy.language=true, or take policy.fusion = concat"
            )
        grids = {name: dim for name, (count, dim) in sizes.tokens.items() if count > 1}
        for name in grids:
            if math.isqrt(count := sizes.tokens[name][0]) ** 2 != count:
                raise ConfigError(
                    f"policy.fusion = point needs square grids, and '{name}' has {count} tokens; take "
                    "--pool grid4, a trunk conv with output = grid, or policy.fusion = tokens"
                )
        if not grids:
            raise ConfigError(
                "policy.fusion = point looks for places in grids of tokens, and every stream has one token; "
                "take --pool grid4, or a trunk conv with output = grid"
            )
        self._names, self._grids, self._points = tuple(sizes.tokens), tuple(grids), points
        self.queries = nn.ModuleList(nn.Linear(sizes.task_dim, points * key_dim) for _ in grids)
        self.keys = nn.ModuleList(nn.Linear(dim, key_dim) for dim in grids.values())
        self.values = nn.ModuleList(nn.Linear(dim, VALUE_DIM) for dim in grids.values())
        single = sum(dim for name, (_, dim) in sizes.tokens.items() if name not in grids)
        found = len(grids) * points * (2 + VALUE_DIM)
        self.cond_projector = nn.Linear(found + single + sizes.state_dim, sizes.cond_dim)

    def forward(
        self,
        tokens: Mapping[str, Float[Tensor, "B T_obs _N _D"]],
        state: Float[Tensor, "B T_obs S"] | None,
        task: Float[Tensor, "B T_obs L"] | None,
    ) -> Float[Tensor, "B T_obs C"]:
        assert task is not None  # the agent sees to it
        parts = [tokens[name].flatten(-2) for name in self._names if name not in self._grids]
        for name, query, key, value in zip(self._grids, self.queries, self.keys, self.values, strict=True):
            asked = query(task).unflatten(-1, (self._points, -1))
            logits = asked @ key(tokens[name]).mT / math.sqrt(asked.shape[-1])
            weights = logits.float().softmax(dim=-1)  # [B, T_obs, P, N]
            places = grid_places(tokens[name].shape[-2], weights)
            parts.append((weights @ torch.cat([places, value(tokens[name]).float()], dim=-1)).flatten(-2))
        parts += [] if state is None else [state]
        # The state is among them: in bfloat16 it would be known to 0.4 % of a standard deviation.
        dtype = self.cond_projector.weight.dtype
        with torch.autocast(task.device.type, enabled=False):
            return self.cond_projector(torch.cat([part.to(dtype) for part in parts], dim=-1))


def grid_places(count: int, like: Float[Tensor, "B T_obs _P N"]) -> Float[Tensor, "B T_obs N 2"]:
    """Return (x, y) of each cell of a square grid, row by row, in [-1, 1]."""
    side = math.isqrt(count)
    line = torch.linspace(-1, 1, side, device=like.device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    places = torch.stack([x, y], dim=-1).flatten(0, 1)
    return places.expand(*like.shape[:2], count, 2)
