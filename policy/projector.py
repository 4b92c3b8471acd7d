"""Trainable projectors: each view's frozen features to a few numbers, views side by side.

one token       standardise, linear
several         standardise, attention pooling over tokens with learned positions
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.cache.metadata import FeatureStatistics
from vla.policy.nn.normalize import Standardize

POOL_HEADS = 8


class AttentionPool(nn.Module):
    """Reduce a view's tokens to one vector: each head attends where it has learned to look.

    Positions are learned and added to keys and values, so that the result can tell where in the image
    something was found, which the mean of the tokens cannot.

    Args:
        feature_dim: length of a token.
        tokens: their number.
        output_dim: length of the result.
    """

    def __init__(self, feature_dim: int, tokens: int, output_dim: int) -> None:
        super().__init__()
        self.num_heads = math.gcd(POOL_HEADS, output_dim)
        self.key = nn.Linear(feature_dim, self.num_heads, bias=False)
        self.value = nn.Linear(feature_dim, output_dim)
        self.key_position = nn.Parameter(torch.zeros(tokens, self.num_heads))
        self.value_position = nn.Parameter(0.02 * torch.randn(tokens, output_dim))
        self.out = nn.Linear(output_dim, output_dim)

    def forward(self, tokens: Float[Tensor, "*batch tokens dim"]) -> Float[Tensor, "*batch output_dim"]:
        weights = (self.key(tokens) + self.key_position).softmax(dim=-2)
        values = (self.value(tokens) + self.value_position).unflatten(-1, (self.num_heads, -1))
        return self.out((weights[..., None] * values).sum(dim=-3).flatten(-2))


class ViewProjector(nn.Module):
    """One projector a camera, on standardised features.

    Standardising matters: frames of one scene differ little in a frozen feature space, next to the
    feature's mean.

    Args:
        camera_names: in the order in which views are concatenated.
        feature_dim: length of a frozen feature.
        tokens: features a view.
        per_view_dim: output width of a view.

    Attributes:
        output_dim: width of all views together.
    """

    def __init__(self, camera_names: Sequence[str], feature_dim: int, tokens: int, per_view_dim: int) -> None:
        super().__init__()
        self.camera_names = tuple(camera_names)
        # Lists, not dicts: a camera may have a dot in its name, a module may not.
        self.standardize = nn.ModuleList(Standardize(feature_dim) for _ in camera_names)
        self.project = nn.ModuleList(
            nn.Linear(feature_dim, per_view_dim)
            if tokens == 1
            else AttentionPool(feature_dim, tokens, per_view_dim)
            for _ in camera_names
        )
        self.output_dim = per_view_dim * len(self.camera_names)

    def fit(self, statistics: Mapping[str, FeatureStatistics]) -> None:
        """Standardise with a cache's feature statistics."""
        for camera, standardize in zip(self.camera_names, self.standardize, strict=True):
            assert isinstance(standardize, Standardize)
            standardize.fit(statistics[camera].mean, statistics[camera].std)

    def forward(
        self, features: Mapping[str, Float[Tensor, "B T_obs tokens dim"]]
    ) -> Float[Tensor, "B T_obs views_dim"]:
        """Project each view by itself and concatenate them in camera order."""
        projected = []
        for camera, standardize, project in zip(
            self.camera_names, self.standardize, self.project, strict=True
        ):
            tokens = standardize(features[camera].float())
            projected.append(project(tokens.squeeze(-2) if isinstance(project, nn.Linear) else tokens))
        return torch.cat(projected, dim=-1)
