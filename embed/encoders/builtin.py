"""Encoders that come with vla, in the architecture of the real checkpoint but small.

siglip2-tiny-sim      trained on renders of `sim_transfer` (scripts/tiny_sim); knows that task and no other
siglip2-tiny-random   random weights from a fixed seed: for trying the pipeline on data of any kind
"""

from pathlib import Path

import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

TINY_SIM = "siglip2-tiny-sim"
TINY_SIM_FOLDER = Path(__file__).parents[1] / "assets" / TINY_SIM
TINY_RANDOM = "siglip2-tiny-random"

TINY_CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "image_size": 256,
    # 64 patches instead of 256: 527 images/s on two CPU cores, 116 with patches of 16.
    "patch_size": 32,
}


def tiny_random() -> SiglipVisionModel:
    """Build a SigLIP vision tower with random weights; the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SiglipVisionModel(SiglipVisionConfig(**TINY_CONFIG))
