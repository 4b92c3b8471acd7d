"""Checkpoints of the package of LeWorldModel's authors: the same features, the same loss. make interop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_datasets import CAMERAS, fake_images

from vla.base.lewm import MEAN, STD, prepare
from vla.embed import ENCODERS, FrozenEncoder
from vla.embed.encoders.lewm import LewmEncoder
from vla.policy.pretrain.pretrain_config import PretrainConfig
from vla.policy.pretrain.sigreg import random_directions, sigreg
from vla.policy.pretrain.world_model import WorldModel

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

ACTIONS, FRAMESKIP = 3, 5


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Return their world model of the paper's sizes, with BatchNorm statistics."""
    from stable_worldmodel.wm.lewm import LeWM
    from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    vit = ViTConfig(
        hidden_size=192,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=768,
        patch_size=14,
        image_size=224,
    )

    def projector() -> Any:
        return MLP(192, 2048, 192, norm_fn=torch.nn.BatchNorm1d)

    sizes = {"depth": 6, "heads": 16, "mlp_dim": 2048, "input_dim": 192, "hidden_dim": 192}
    model = LeWM(
        encoder=ViTModel(vit, add_pooling_layer=False, use_mask_token=False),
        predictor=Predictor(num_frames=3, dropout=0.1, **sizes),
        action_encoder=Embedder(input_dim=FRAMESKIP * ACTIONS, emb_dim=192),
        projector=projector(),
        pred_proj=projector(),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "adaLN" in name:  # zero at the start: actions would not matter
                parameter.normal_(std=0.05)
        for norm in (model.projector.net[1], model.pred_proj.net[1]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    return {camera: fake_images(seed, 2, size=(256, 256)) for seed, camera in enumerate(CAMERAS)}


def their_pixels(images: dict[str, np.ndarray]) -> torch.Tensor:
    """Prepare views side by side as their training script does: scale, normalise, Resize(224)."""
    from torchvision.transforms import v2

    steps = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            v2.Resize(224),
        ]
    )
    wide = np.concatenate([images[camera] for camera in CAMERAS], axis=2)
    return torch.stack([steps(image) for image in wide])


@torch.no_grad()
def test_features_of_their_checkpoint_are_theirs(
    theirs: Any, images: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "epoch=99-step=47800.ckpt"
    named = {f"model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"epoch": 99, "global_step": 47800, "state_dict": named}, path)
    config = ENCODERS.parse({"type": "lewm", "id": str(path), "device": "cpu"})
    encoder = FrozenEncoder.load(config, CAMERAS)
    assert isinstance(encoder.encoder, LewmEncoder)

    pixels = their_pixels(images)
    due = theirs.encode({"pixels": pixels[:, None]})["emb"][:, 0]
    wide = torch.from_numpy(np.concatenate([images[camera] for camera in CAMERAS], axis=2))
    torch.testing.assert_close(prepare(wide, 224), pixels, rtol=0, atol=1e-5)
    found = encoder.encoder.vision(prepare(wide, 224))
    difference = float((found - due).abs().max())
    print(
        f"features of {tuple(pixels.shape)}: largest difference {difference:.2g}, std {float(due.std()):.2f}"
    )
    assert difference < 1e-5 * max(1.0, float(due.abs().max()))
    torch.testing.assert_close(encoder.encode(images)["lewm"][:, 0].float(), due, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_loss_of_our_world_model_is_theirs(theirs: Any) -> None:
    from stable_worldmodel.wm.loss import SIGReg

    ours = WorldModel(PretrainConfig(frameskip=FRAMESKIP), ACTIONS).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"action_standardize"}  # theirs come standardised
    torch.manual_seed(1)
    embedded, actions = torch.randn(4, 3, 192), torch.randn(4, 3, FRAMESKIP, ACTIONS)
    due = theirs.predict(embedded, theirs.action_encoder(actions.flatten(2)))
    torch.testing.assert_close(ours.predict(embedded, actions), due, rtol=1e-4, atol=1e-5)

    features = torch.randn(64, 4, 192) * 1.2
    torch.manual_seed(2)
    statistic = SIGReg()(features.transpose(0, 1))
    torch.manual_seed(2)
    directions = random_directions(192, 1024, torch.device("cpu"))
    torch.testing.assert_close(sigreg(features, directions), statistic, rtol=1e-4, atol=1e-5)
