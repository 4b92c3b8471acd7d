"""Small LEWM checkpoints for tests, in the forms in which they are found."""

from pathlib import Path

import torch
from torch import Tensor, nn

from vla.base.lewm import LewmVision, VisionSizes

SMALL = VisionSizes(width=64, depth=2, mlp=96, patch=8, grid=4, projector=24, dim=192)
"""Sees 32 x 32 pixels; one attention head."""
OLD_NAMES = (
    ("attention.q_proj", "attention.attention.query"),
    ("attention.k_proj", "attention.attention.key"),
    ("attention.v_proj", "attention.attention.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)


def small_vision(seed: int = 0, sizes: VisionSizes = SMALL) -> LewmVision:
    """Return an encoder whose BatchNorm has seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vision = LewmVision(sizes)
        for parameter in vision.parameters():
            nn.init.normal_(parameter, std=0.4)
        norm = vision.projector.net[1]
        assert isinstance(norm, nn.BatchNorm1d)
        norm.running_mean = torch.randn(sizes.projector)
        norm.running_var = torch.rand(sizes.projector) + 0.5
    return vision.eval()


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Spell a state dict as transformers 4 does, if it is not."""
    renamed = {}
    for name, tensor in state.items():
        if name.startswith("encoder.layers."):
            name = name.replace("encoder.layers.", "encoder.encoder.layer.")
            for new, old in OLD_NAMES:
                name = name.replace(new, old)
        renamed[name] = tensor
    return renamed


def write_lightning(path: Path, vision: LewmVision, *, old: bool = False) -> Path:
    """Write what Lightning saves of a world model: encoder and projector among other things."""
    state = dict(vision.state_dict())
    state |= {"predictor.pos_embedding": torch.zeros(1, 3, 4), "pred_proj.net.0.weight": torch.zeros(2, 2)}
    named = {f"model.{name}": tensor for name, tensor in (old_names(state) if old else state).items()}
    named["sigreg.t"] = torch.zeros(17)
    torch.save({"epoch": 99, "global_step": 47800, "state_dict": named, "loops": {}}, path)
    return path
