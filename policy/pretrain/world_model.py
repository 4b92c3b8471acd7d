"""LeWorldModel (arXiv 2603.19312): an encoder that learns by predicting its own features.

    z_t = encoder(image_t)                       the features that are kept
    ẑ_{t+1} = pred_proj(predictor(z_{≤t}, a_{≤t}))
    L = mean |ẑ_{t+1} - z_{t+1}|² + λ SIGReg(z)

The targets are not detached, and there is no averaged copy of the encoder: SIGReg alone keeps features apart.
Every instant of a clip is encoded, and every one but the first predicted.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vla.base.lewm import LewmVision, Projector, fuse, prepare
from vla.policy.nn.normalize import Standardize
from vla.policy.pretrain.clips import Clips
from vla.policy.pretrain.health import health
from vla.policy.pretrain.predictor import ActionEncoder, Predictor
from vla.policy.pretrain.pretrain_config import PretrainConfig
from vla.policy.pretrain.sigreg import random_directions, sigreg

Figures = dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a batch of clips gave."""

    loss: Float[Tensor, ""]
    figures: Figures
    embedded: Float[Tensor, "B T D"]


class WorldModel(LewmVision):
    """Encoder, projector, action encoder and predictor; tensors are named as in LeWorldModel's checkpoints.

    Args:
        config: sizes and the weight of SIGReg.
        action_dim: numbers of an action.
    """

    def __init__(self, config: PretrainConfig, action_dim: int) -> None:
        super().__init__(config.vision)
        self._config, self._layout = config, config.layout
        self.action_encoder = ActionEncoder(config.frameskip * action_dim, config.dim)
        self.predictor = Predictor(
            config.history,
            config.dim,
            depth=config.predictor_depth,
            heads=config.predictor_heads,
            hidden=config.predictor_mlp,
            dropout=config.dropout,
        )
        self.pred_proj = Projector(config.dim, config.vision.projector, config.dim)
        self.action_standardize = Standardize(action_dim)

    def embed(self, views: list[UInt8[Tensor, "B T h w 3"]]) -> Float[Tensor, "B T D"]:
        """Encode all instants of clips."""
        image = fuse([view.flatten(0, 1) for view in views], self._layout)
        return self(prepare(image, self._config.image_size)).unflatten(0, views[0].shape[:2])

    def predict(
        self, embedded: Float[Tensor, "B T D"], actions: Float[Tensor, "B T frames A"]
    ) -> Float[Tensor, "B T D"]:
        """Predict the features of the instant after each.

        Args:
            embedded: features of at most `history` instants.
            actions: from each of them to the next, in the robot's units.
        """
        taken = self.action_encoder(self.action_standardize(actions).flatten(2))
        predicted = self.predictor(embedded, taken)
        return self.pred_proj(predicted.flatten(0, 1)).unflatten(0, embedded.shape[:2])

    def loss(self, clips: Clips) -> Outcome:
        """Return the loss of clips; directions and dropout are drawn by torch's own generator."""
        embedded = self.embed(clips.views)
        predicted = self.predict(embedded[:, :-1], clips.actions)
        embedded, predicted = embedded.float(), predicted.float()
        error = (predicted - embedded[:, 1:]).square().mean()
        with torch.autocast(embedded.device.type, enabled=False):
            directions = random_directions(embedded.shape[-1], self._config.projections, embedded.device)
            spread = sigreg(embedded, directions)
        with torch.no_grad():
            signs = health(embedded, predicted)
        figures = {"prediction": error.detach(), "sigreg": spread.detach(), **signs}
        return Outcome(error + self._config.sigreg * spread, figures, embedded.detach())
