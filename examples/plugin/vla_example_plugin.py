"""An encoder, a trunk and a head of one's own; once this package is installed, vla finds them by `type`."""

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from vla import EncoderConfig, HeadConfig, OneToken, PerViewEncoder, RegressionHead, TrunkConfig


class ColourGridConfig(EncoderConfig):
    """The mean colour of each cell of a grid."""

    type: Literal["colour_grid"] = "colour_grid"
    id: str = "colour_grid"
    cells: int = 4

    def build(self, cameras: tuple[str, ...], device: Any) -> "ColourGrid":
        return ColourGrid(self.identity(), cameras, shape=(self.cells**2, 3), image_size=(64, 64))


class ColourGrid(PerViewEncoder):
    def encode_view(self, frames: Tensor) -> Tensor:
        cells = int(self.writes[0].shape[0] ** 0.5)
        return nn.functional.adaptive_avg_pool2d(frames.permute(0, 3, 1, 2) / 255, cells).flatten(2).mT


class FlatConfig(TrunkConfig):
    """All tokens side by side, one linear map."""

    kinds: ClassVar = ("tokens",)
    type: Literal["flat"] = "flat"

    def build(self, stream: Any, dim: int) -> OneToken:
        network = nn.Sequential(nn.Flatten(-2), nn.Linear(stream.shape[0] * stream.shape[1], dim))
        return OneToken(network, dim)


class LinearConfig(HeadConfig):
    """Regression by one linear map of the condition."""

    type: Literal["linear_regression"] = "linear_regression"

    def build(self, policy: Any, action_dim: int, cond_tokens: int) -> RegressionHead:
        width = cond_tokens * policy.cond_dim
        return RegressionHead(nn.Linear(width, policy.pred_horizon * action_dim), policy, action_dim)
