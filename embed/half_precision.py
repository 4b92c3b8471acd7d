"""Say that a CPU could encode faster in bfloat16. It is not chosen by itself: docs/decisions/0023."""

import torch

from vla.base.device import multiplies_bfloat16
from vla.base.progress import say
from vla.embed.encoders.encoder import EncoderConfig

FEWEST_WEIGHTS = 20_000_000
"""Smaller towers gain little: the small encoder, of 1.8 million, 3 %; SigLIP2-base, of 93 million, 81 %."""


def say_what_bfloat16_saves(config: EncoderConfig, device: torch.device, num_weights: int) -> None:
    """Name the setting, where nobody chose an arithmetic and a large tower begins a cache on such a CPU.

    Args:
        config: as it was given.
        device: where it encodes.
        num_weights: of the encoder.
    """
    if config.dtype != "auto" or "bfloat16" not in config.dtypes or device.type != "cpu":
        return
    if num_weights >= FEWEST_WEIGHTS and multiplies_bfloat16():
        say(
            "this CPU multiplies bfloat16 in hardware: --set encoder.dtype=bfloat16 encodes almost twice as "
            "fast, with features that differ in the third digit; it is another cache, so choose now"
        )
