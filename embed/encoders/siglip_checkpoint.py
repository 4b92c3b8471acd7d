"""SigLIP checkpoints: those of the Hub and directories, and two that come with vla.

Both published forms load: the vision tower alone, and the two-tower `SiglipModel` as it stands
under `google/siglip2-base-patch16-256`, of which only the vision half is read. Two come with vla, in the
architecture of the real checkpoint but small:

siglip2-tiny-sim      trained on renders of `sim_transfer` (scripts/tiny_sim); knows that task and no other
siglip2-tiny-random   random weights from a fixed seed: for trying the pipeline on data of any kind
"""

from pathlib import Path

import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from vla.embed.encoders.checkpoint import VisionCheckpoint, load_tower
from vla.embed.encoders.processor_files import Choice, TowerInput, read_preprocessing
from vla.embed.encoders.siglip import KIND, TINY_RANDOM, TINY_SIM

TINY_SIM_FOLDER = Path(__file__).parents[1] / "assets" / TINY_SIM

TINY_CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "image_size": 256,
    # 64 patches instead of 256: 527 images/s on two CPU cores, 116 with patches of 16.
    "patch_size": 32,
}


def load_checkpoint(name: str, revision: str, interpolation: Choice = "auto") -> VisionCheckpoint:
    """Load a vision tower.

    Args:
        name: a directory, a built-in name, or a Hub id; tried in this order.
        revision: branch, tag or commit on the Hub.
        interpolation: how images are resized; `auto` is as the checkpoint says.

    Raises:
        EncoderError: the weights cannot be reached, are not a whole SigLIP vision tower, or want images
            prepared as vla does not.
    """
    if name == TINY_RANDOM and not Path(name).is_dir():
        model = tiny_random()
        spec = read_preprocessing(name, {}, TowerInput(size=model.config.image_size), interpolation)
        return VisionCheckpoint(model, spec, None)
    if name == TINY_SIM and not Path(name).is_dir():
        name = str(TINY_SIM_FOLDER)
    return load_tower(name, revision, KIND, interpolation)


def uses_head(model: SiglipVisionModel) -> bool:
    """Return whether a vision tower has a pooling head; transformers 4 leaves the key out where it has."""
    return bool(getattr(model.config, "vision_use_head", True))


def tiny_random() -> SiglipVisionModel:
    """Build a SigLIP vision tower with random weights; the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SiglipVisionModel(SiglipVisionConfig(**TINY_CONFIG))
