"""Trainable projectors: each view's frozen feature to a few numbers, views side by side."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.cache.metadata import FeatureStatistics
from vla.policy.normalize import Standardize


class ViewProjector(nn.Module):
    """One linear map a camera, on standardised features.

    Standardising matters: frames of one scene differ little in a frozen feature space, next to the
    feature's mean.

    Args:
        camera_names: in the order in which views are concatenated.
        feature_dim: length of a frozen feature.
        per_view_dim: output width of a view.

    Attributes:
        output_dim: width of all views together.
    """

    def __init__(self, camera_names: Sequence[str], feature_dim: int, per_view_dim: int) -> None:
        super().__init__()
        self.camera_names = tuple(camera_names)
        # Lists, not dicts: a camera may have a dot in its name, a module may not.
        self.standardize = nn.ModuleList(Standardize(feature_dim) for _ in camera_names)
        self.project = nn.ModuleList(nn.Linear(feature_dim, per_view_dim) for _ in camera_names)
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
        views = zip(self.camera_names, self.standardize, self.project, strict=True)
        return torch.cat(
            [
                project(standardize(features[camera].float().mean(dim=-2)))
                for camera, standardize, project in views
            ],
            dim=-1,
        )
